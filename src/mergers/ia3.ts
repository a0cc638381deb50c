/** (IA)³ adapters merged into one: vectors that stand beside modules, ones where an adapter has none. */
import { join } from "node:path";
import { at, f64 } from "../at.js";
import { adapterWeightsName } from "../checkpoint/adapter.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import { entryOf, type Checkpoint } from "../checkpoint/folder.js";
import { refIn, type Ref, type TensorEntry } from "../checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../checkpoint/write.js";
import { mergeOnDisk, type DiskOptions } from "../disk/merge.js";
import type { PlannedTensor } from "../disk/plan.js";
import { UserError } from "../errors.js";
import { elements, fromFloat32, toFloat32 } from "../tensor/dtype.js";
import { writeAdapterConfig } from "./adapter-config.js";
import type { AdapterResult, MethodUse } from "./lora.js";

/** A module that some adapter scales. */
interface Ia3Module {
  /** The base's name of its weight. */
  readonly weight: string;
  readonly module: string;
  readonly along: "in" | "out";
  readonly name: string;
  readonly shape: readonly number[];
  /** Each adapter's vector; undefined where it has none. */
  readonly vectors: readonly (Vector | undefined)[];
}

interface Vector {
  readonly adapter: AdaptedCheckpoint;
  readonly along: "in" | "out";
  /** As the adapter's file calls it. */
  readonly stored: string;
  readonly module: string;
}

function vectorOf(adapter: AdaptedCheckpoint, weight: string): Vector | undefined {
  const part = adapter.adapted.get(weight);
  if (part?.kind !== "ia3") return undefined;
  return { adapter, along: part.along, stored: part.l, module: part.module };
}

function entryOfVector({ adapter: { adapter, folder }, stored }: Vector): TensorEntry {
  const entry = adapter.file.entries.get(stored);
  if (!entry) throw new UserError(`${folder}: there is no tensor "${stored}"`);
  return entry;
}

const vectorRef = (vector: Vector): Ref => refIn(vector.adapter.adapter.file.path, entryOfVector(vector));

function ia3Module(base: Checkpoint, weight: string, adapters: readonly AdaptedCheckpoint[]): Ia3Module[] {
  const vectors = adapters.map((adapter) => vectorOf(adapter, weight));
  const [first] = vectors.filter((vector) => vector !== undefined);
  // A bias goes with its weight.
  if (!first || entryOf(base, weight).shape.length < 2) return [];
  const odd = vectors.find((vector) => vector && vector.along !== first.along);
  if (odd)
    throw new UserError(
      `${odd.adapter.folder}: it scales what goes into "${weight}" where another scales ` +
        "what comes out, or the other way round; use --write model",
    );
  const { module, along } = first;
  const { shape } = entryOfVector(first);
  return [{ weight, module, along, name: `base_model.model.${module}.ia3_l`, shape, vectors }];
}

/** Every module that some adapter scales, in the base's order. */
const modulesOf = (base: Checkpoint, adapters: readonly AdaptedCheckpoint[]): Ia3Module[] =>
  base.names.flatMap((weight) => ia3Module(base, weight, adapters));

async function writeConfig(
  out: string,
  modules: readonly Ia3Module[],
  first: AdaptedCheckpoint,
): Promise<void> {
  await writeAdapterConfig(out, first, false, {
    exclude_modules: null,
    modules_to_save: null,
    inference_mode: true,
    target_modules: modules.map(({ module }) => module),
    feedforward_modules: modules.filter(({ along }) => along === "in").map(({ module }) => module),
  });
}

/** Writes 1 + Σ c_i · (l_i − 1) of every module. @param coefficients of a weight, an adapter each */
export async function writeLinearIa3(
  { out, base, adapters, dtype }: AdapterResult,
  coefficients: (weight: string) => Float64Array,
): Promise<void> {
  const modules = modulesOf(base, adapters);
  const sources = modules.map(({ weight, name, shape, vectors }): TensorSource => ({
    name,
    dtype,
    shape,
    async bytes() {
      const c = coefficients(weight);
      const sum = new Float64Array(elements(shape)).fill(1);
      for (const [i, vector] of vectors.entries()) {
        if (!vector) continue;
        const values = toFloat32(await vector.adapter.adapter.file.read(vector.stored));
        values.forEach((l, entry) => (sum[entry] = f64(sum, entry) + f64(c, i) * (l - 1)));
      }
      return fromFloat32(Float32Array.from(sum), dtype);
    },
  }));
  await writeSafetensors(join(out, adapterWeightsName), sources);
  await writeConfig(out, modules, at(adapters, 0));
}

/** Merges the vectors with a method that trains nothing, entry by entry, the base being ones. */
export async function mergeIa3(
  { out, base, adapters, dtype }: AdapterResult,
  { method, values, labels }: MethodUse,
  disk: DiskOptions,
): Promise<void> {
  const ones: Ref = { path: "ones", start: 0, dtype: "F32", constant: 1 };
  const modules = modulesOf(base, adapters);
  const tensors = modules.map(({ name, shape, vectors }): PlannedTensor => ({
    name,
    dtype,
    shape,
    base: ones,
    values,
    inputs: vectors.map((vector) => (vector ? vectorRef(vector) : ones)),
  }));
  await mergeOnDisk({ method: method.name, labels, tensors }, out, { ...disk, file: adapterWeightsName });
  await writeConfig(out, modules, at(adapters, 0));
}
