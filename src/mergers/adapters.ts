import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import seedrandom from "seedrandom";
import { adapterConfigName, adapterWeightsName } from "../checkpoint/adapter.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import type { Member } from "../checkpoint/family.js";
import { editJson, writeText } from "../checkpoint/files.js";
import { hostTensor } from "../checkpoint/overlay.js";
import { refIn, type Ref } from "../checkpoint/ref.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { stackLora, type StackedModule } from "../checkpoint/stacked.js";
import { writeSafetensors, type TensorSource } from "../checkpoint/write.js";
import { compileMerge } from "../disk/compile.js";
import { mergeOnDisk } from "../disk/merge.js";
import type { PlannedTensor } from "../disk/plan.js";
import { UserError } from "../errors.js";
import { readerFor } from "../methods/pipeline.js";
import type { Method, TensorReader, ParameterValues } from "../methods/types.js";
import { elements, fromFloat32, toFloat32, type FloatDType, type HostTensor } from "../tensor/dtype.js";
import { factorise } from "../tensor/factorise.js";
import { transposed } from "../tensor/lowrank.js";
import type { DiskMerge } from "../folder/merge.js";
import type { MergeHooks } from "../config/options.js";

/** One LoRA module of the result: B A is what is added to the weight. A [rank, in], B [out, rank]. */
interface LoraResult {
  readonly module: string;
  readonly rank: number;
  readonly a: HostTensor;
  readonly b: HostTensor;
}

/** An adapter's config as the first input has it, but for what is other. */
const writeConfig = async (
  out: string,
  { folder }: AdaptedCheckpoint,
  changes: Readonly<Record<string, unknown>>,
): Promise<void> =>
  writeText(
    join(out, adapterConfigName),
    editJson(await readFile(join(folder, adapterConfigName), "utf8"), (config) => ({
      ...config,
      ...changes,
    })),
  );

/** Writes a PEFT LoRA folder. α is the rank, so that the scale is 1. */
async function writeLora(
  out: string,
  modules: readonly LoraResult[],
  first: AdaptedCheckpoint,
  dtype: FloatDType,
): Promise<void> {
  const ranks = new Map(modules.map(({ module, rank }) => [module, rank]));
  const common = Math.max(...ranks.values());
  const odd = Object.fromEntries([...ranks].filter(([, rank]) => rank !== common));
  await writeSafetensors(
    join(out, adapterWeightsName),
    modules.flatMap(({ module, a, b }) =>
      (
        [
          ["A", a],
          ["B", b],
        ] as const
      ).map(([name, tensor]): TensorSource => ({
        name: `base_model.model.${module}.lora_${name}.weight`,
        dtype,
        shape: tensor.shape,
        bytes: async () => fromFloat32(toFloat32(tensor), dtype),
      })),
    ),
  );
  await writeConfig(out, first, {
    r: common,
    lora_alpha: common,
    rank_pattern: odd,
    alpha_pattern: odd,
    use_rslora: false,
    init_lora_weights: true,
    exclude_modules: null,
    layers_to_transform: null,
    layers_pattern: null,
    modules_to_save: null,
    bias: "none",
    inference_mode: true,
    target_modules: [...ranks.keys()],
  });
}

/** B diag(d) A as LoRA: d goes into B, and what is 0 in d is left out. */
function withGain({ module, rank, a, b }: StackedModule, d: ArrayLike<number>): LoraResult {
  const kept = Array.from({ length: rank }, (_, q) => q).filter((q) => d[q] !== 0);
  // A module that nothing is left of keeps one part: PEFT knows no rank 0.
  const parts = kept.length ? kept : [0];
  const [fullA, fullB] = [toFloat32(a), toFloat32(b)];
  const [input, out] = [fullA.length / rank, fullB.length / rank];
  const [newA, newB] = [new Float32Array(parts.length * input), new Float32Array(out * parts.length)];
  for (const [i, q] of parts.entries()) {
    newA.set(fullA.subarray(q * input, (q + 1) * input), i * input);
    for (let o = 0; o < out; o++) newB[o * parts.length + i] = fullB[o * rank + q]! * d[q]!;
  }
  return {
    module,
    rank: parts.length,
    a: hostTensor(newA, [parts.length, input]),
    b: hostTensor(newB, [out, parts.length]),
  };
}

/** A table's coefficients of one module, an expert each. */
export type CoefficientsOf = (weight: string) => ArrayLike<number>;

/**
 * Writes Σ c_i · adapter_i as one adapter, with a coefficient for each module and expert. LoRA: the
 * ranks add up, nothing is lost.
 */
export async function writeLinearAdapter(
  out: string,
  base: Member,
  adapters: readonly AdaptedCheckpoint[],
  coefficients: CoefficientsOf,
  dtype: FloatDType = "F32",
): Promise<void> {
  if (adapters[0]!.adapter.kind === "lora") {
    const stacked = await stackLora(base.checkpoint.names, adapters);
    await writeLora(
      out,
      stacked.map((module) => {
        const c = coefficients(module.weight);
        const d = new Float64Array(module.rank);
        module.gains.forEach((gain, i) => gain?.forEach((g, q) => (d[q] = d[q]! + c[i]! * g)));
        return withGain(module, d);
      }),
      adapters[0]!,
      dtype,
    );
    return;
  }
  await writeSafetensors(
    join(out, adapterWeightsName),
    ia3Modules(base, adapters).map(({ weight, name, shape, parts }): TensorSource => ({
      name,
      dtype,
      shape,
      async bytes() {
        const c = coefficients(weight);
        const sum = new Float64Array(elements(shape)).fill(1);
        for (const [i, part] of parts.entries())
          if (part !== undefined)
            toFloat32(await adapters[i]!.adapter.file.read(part)).forEach(
              (l, at) => (sum[at] = sum[at]! + c[i]! * (l - 1)),
            );
        return fromFloat32(Float32Array.from(sum), dtype);
      },
    })),
  );
  await writeIa3Config(out, base, adapters);
}

interface Ia3Module {
  readonly weight: string;
  readonly module: string;
  readonly along: "in" | "out";
  readonly name: string;
  readonly shape: readonly number[];
  readonly parts: readonly (string | undefined)[];
}

/** Every module that some (IA)³ adapter scales. */
function ia3Modules(base: Member, adapters: readonly AdaptedCheckpoint[]): Ia3Module[] {
  return base.checkpoint.names.flatMap((weight): Ia3Module[] => {
    const parts = adapters.map(({ adapted }) => adapted.get(weight));
    const at = parts.findIndex((part) => part?.kind === "ia3");
    const first = parts[at];
    // A bias goes with its weight.
    if (first?.kind !== "ia3" || base.checkpoint.entry(weight)!.shape.length < 2) return [];
    const { file } = adapters[at]!.adapter;
    const { module } = first;
    const odd = parts.findIndex((part) => part?.kind === "ia3" && part.along !== first.along);
    if (odd >= 0)
      throw new UserError(
        `${adapters[odd]!.folder}: it scales what goes into "${weight}" where another scales ` +
          "what comes out, or the other way round; use --write model",
      );
    return [
      {
        weight,
        module,
        along: first.along,
        name: `base_model.model.${module}.ia3_l`,
        shape: file.entries.get(first.l)!.shape,
        parts: parts.map((part) => (part?.kind === "ia3" ? part.l : undefined)),
      },
    ];
  });
}

async function writeIa3Config(
  out: string,
  base: Member,
  adapters: readonly AdaptedCheckpoint[],
): Promise<void> {
  const modules = ia3Modules(base, adapters);
  await writeConfig(out, adapters[0]!, {
    exclude_modules: null,
    modules_to_save: null,
    inference_mode: true,
    target_modules: modules.map(({ module }) => module),
    feedforward_modules: modules.filter(({ along }) => along === "in").map(({ module }) => module),
  });
}

/** A method on a vector in memory, one part, without a base's own entries. */
function mergeVector(
  method: Method,
  values: ParameterValues,
  name: string,
  labels: readonly string[],
  inputs: readonly Float32Array[],
): Float32Array {
  const size = inputs[0]!.length;
  const reader: TensorReader = {
    name,
    labels,
    rows: 1,
    width: size,
    *parts() {
      yield { start: 0, base: new Float32Array(size), inputs: inputs.map((x) => Float32Array.from(x)) };
    },
  };
  const treated = readerFor(method, values, reader, { found: [] });
  const merge = method.merge(treated, values, undefined);
  const out = new Float32Array(size);
  for (const part of treated.parts()) merge(part, out);
  return out;
}

/**
 * Merges adapters with a method that trains nothing into an adapter. (IA)³ vectors are merged entry by
 * entry, the base being ones. LoRA: a method that weights whole inputs takes the adapters side by side;
 * any other sees the products, never A and B apart, and what it makes is taken apart again to a product
 * of `rank` (default: the inputs' ranks together).
 * @returns what taking apart cost: ‖error‖ / ‖change‖, where it was done
 */
export async function writeAdapterMerge(
  out: string,
  merge: DiskMerge & { readonly base: Member; readonly rank?: number | undefined },
  adapters: readonly AdaptedCheckpoint[],
  hooks: Pick<MergeHooks, "note" | "progress" | "stopping">,
): Promise<number | undefined> {
  const { method, values, base, inputs, threads, shardSize } = merge;
  const dtype = merge.dtype === "auto" ? "F32" : merge.dtype;
  const labels = inputs.map(({ label }) => label);
  const disk = { shardBytes: shardSize, threads, progress: hooks.progress, stopping: hooks.stopping };
  if (adapters[0]!.adapter.kind === "ia3") {
    const one: Ref = { path: "ones", start: 0, dtype: "F32", constant: 1 };
    const tensors = ia3Modules(base, adapters).map(({ name, shape, parts }): PlannedTensor => ({
      name,
      dtype,
      shape,
      base: one,
      values,
      inputs: parts.map((part, i) => (part === undefined ? one : refOfPart(adapters[i]!, part))),
    }));
    await mergeOnDisk({ method: method.name, labels, tensors }, out, { ...disk, file: adapterWeightsName });
    await writeIa3Config(out, base, adapters);
    return undefined;
  }
  const dropped = (values["dareP"] as readonly number[] | undefined)?.some((p) => p > 0);
  if (method.linear && !dropped && merge.rank === undefined) {
    const stacked = await stackLora(base.checkpoint.names, adapters);
    await writeLora(
      out,
      stacked.map((module) =>
        withGain(
          module,
          mergeVector(
            method,
            values,
            module.weight,
            labels,
            module.gains.map((gain) => gain ?? new Float32Array(module.rank)),
          ),
        ),
      ),
      adapters[0]!,
      dtype,
    );
    return undefined;
  }
  return writeProducts(out, { ...merge, dtype }, adapters, disk, hooks);
}

const refOfPart = ({ adapter: { file } }: AdaptedCheckpoint, name: string): Ref =>
  refIn(file.path, file.entries.get(name)!);

/**
 * Merges the products from disk to disk, in float32, then takes each change apart again. Held: one
 * weight's change.
 */
async function writeProducts(
  out: string,
  {
    method,
    values,
    base,
    inputs,
    rank,
    dtype,
  }: DiskMerge & { readonly base: Member; readonly rank?: number | undefined; readonly dtype: FloatDType },
  adapters: readonly AdaptedCheckpoint[],
  disk: Parameters<typeof mergeOnDisk>[2],
  hooks: Pick<MergeHooks, "note" | "progress">,
): Promise<number> {
  const { plan } = compileMerge({ base, inputs }, { method: method.name, values, dtype: "F32" });
  const changed = plan.tensors.filter(({ copy }) => !copy);
  const folder = join(out, "products");
  try {
    await mergeOnDisk({ ...plan, tensors: changed }, folder, { ...disk, shardBytes: Infinity });
    const file = await openSafetensors(join(folder, "model.safetensors"));
    const sums = { error: 0, norm: 0 };
    const results: LoraResult[] = [];
    try {
      for (const [n, { name, shape }] of changed.entries()) {
        hooks.progress("taking products apart", n, changed.length);
        const [rows, width] = shape as [number, number];
        const delta = Float32Array.from(toFloat32(await file.read(name)));
        toFloat32(await base.checkpoint.read(name)).forEach((x, i) => (delta[i] = delta[i]! - x));
        const parts = adapters.map(({ adapted }) => adapted.get(name));
        const own = parts.reduce((sum, part) => sum + (part?.kind === "lora" ? part.rank : 0), 0);
        if (own === 0)
          throw new UserError(
            `${adapters[0]!.folder}: it holds "${name}" whole, which no adapter of low rank can; use --write model`,
          );
        const wanted = Math.min(rank ?? own, rows, width);
        const draw = seedrandom(name);
        const { factors, error, norm } = factorise(delta, rows, width, wanted, () => 2 * draw() - 1);
        sums.error += error ** 2;
        sums.norm += norm ** 2;
        const at = parts.findIndex((part) => part?.kind === "lora");
        const { module } = parts[at]!;
        // A weight that is stored [in, out] has its factors the other way round.
        const [a, b] = adapters[at]!.adapter.transposed
          ? [transposed(factors.left, rows, wanted), transposed(factors.right, wanted, width)]
          : [factors.right, factors.left];
        results.push({
          module,
          rank: wanted,
          a: hostTensor(a, [wanted, a.length / wanted]),
          b: hostTensor(b, [b.length / wanted, wanted]),
        });
      }
      await writeLora(out, results, adapters[0]!, dtype);
    } finally {
      await file.close();
    }
    const cost = sums.norm > 0 ? Math.sqrt(sums.error / sums.norm) : 0;
    hooks.note(
      `written as LoRA of rank ${Math.max(...results.map((one) => one.rank))}: what ` +
        `${method.name} makes is off by ${(100 * cost).toPrecision(2)} % of its norm; --rank ` +
        "takes more or less, --write model loses nothing",
    );
    return cost;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
