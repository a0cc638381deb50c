import { join } from "node:path";
import { existsSync } from "node:fs";
import { UserError } from "../errors.js";
import { dtypeBytes, elements, fromFloat32, toFloat32 } from "../tensor/dtype.js";
import { addFactors, scaleEntries, transposed, type Factors } from "../tensor/lowrank.js";
import { adapterConfigName, adapterWeightsName, type Adapter, type AdapterPart } from "./adapter.js";
import { readJson } from "./files.js";
import type { Checkpoint } from "./folder.js";
import { refIn, type Adapted, type MatrixRef } from "./ref.js";

/** An adapter's modules as the base calls their weights: the base's name → the part. */
export type AdaptedWeights = ReadonlyMap<string, AdapterPart>;

export interface AdaptedCheckpoint extends Checkpoint {
  readonly adapter: Adapter;
  readonly adapted: AdaptedWeights;
  /**
   * Tensors of the base that the adapter holds whole (biases, embeddings), heads aside: no adapter of
   * low rank can say them.
   */
  readonly replaced: readonly string[];
  /** The same without the products: the base's weights, and what the adapter holds whole. */
  plain(): Checkpoint;
}

/**
 * Finds each of an adapter's modules in the base, and checks that they fit. @throws UserError naming
 * the first that does not
 */
function findModules(
  base: Checkpoint,
  adapter: Adapter,
  canonical: (name: string) => string,
): { adapted: AdaptedWeights; whole: ReadonlyMap<string, string> } {
  const stored = new Map(base.names.map((name) => [canonical(name), name]));
  const adapted = new Map<string, AdapterPart>();
  const { file, folder } = adapter;
  for (const part of adapter.parts) {
    const { module } = part;
    const name = stored.get(canonical(`${module}.weight`));
    if (name === undefined)
      throw new UserError(
        `${folder}: it adapts "${module}", which ${base.folder} has not; was it trained on this base?`,
      );
    const shape = base.entry(name)!.shape;
    const [out, input] = adapter.transposed ? [shape[1], shape[0]] : [shape[0], shape[1]];
    const fits =
      part.kind === "lora"
        ? file.entries.get(part.a)!.shape[1] === input && file.entries.get(part.b)!.shape[0] === out
        : elements(file.entries.get(part.l)!.shape) === (part.along === "in" ? input : out);
    if (shape.length !== 2 || !fits)
      throw new UserError(
        `${folder}: what it has for "${module}" does not fit the base's [${shape.join(", ")}]; ` +
          "was it trained on this " +
          `base${adapter.kind === "lora" ? ", and is fan_in_fan_out right" : ""}?`,
      );
    adapted.set(name, part);
    // (IA)³ scales what a layer gives, its bias too.
    const bias = stored.get(canonical(`${module}.bias`));
    if (part.kind === "ia3" && part.along === "out" && bias !== undefined) adapted.set(bias, part);
  }
  // A head is not the base's; anything else must be.
  return {
    adapted,
    whole: new Map([...adapter.whole].map(([name, inFile]) => [stored.get(canonical(name)) ?? name, inFile])),
  };
}

/**
 * A base with an adapter, seen as a checkpoint of its own: its weights are base + scale · B A (or the
 * base's, scaled) and are made when they are read, in float32. Held: the factors of the weight read
 * last.
 */
export async function adaptedCheckpoint(
  base: Checkpoint,
  adapter: Adapter,
  canonical: (name: string) => string,
): Promise<AdaptedCheckpoint> {
  const { file, folder } = adapter;
  const { adapted, whole } = findModules(base, adapter, canonical);
  const configPath = join(folder, "config.json");
  const { label2id: _, ...baseConfig } = base.config;
  const config = existsSync(configPath)
    ? ((await readJson(configPath)) as Record<string, unknown>)
    : baseConfig;
  const names = [...base.names, ...[...whole.keys()].filter((name) => !base.entry(name))];
  const matrix = (name: string): MatrixRef => {
    const entry = file.entries.get(name)!;
    return { ...refIn(file.path, entry), rows: entry.shape[0]!, columns: entry.shape[1]! };
  };
  let last: { name: string; change: (out: Float32Array, from: number) => void } | undefined;
  const changeOf = async (name: string, part: AdapterPart) => {
    if (last?.name === name) return last.change;
    const { shape } = base.entry(name)!;
    const width = shape.at(-1)!;
    let change: (out: Float32Array, from: number) => void;
    if (part.kind === "lora") {
      const factors = factorsOf(
        toFloat32(await file.read(part.a)),
        toFloat32(await file.read(part.b)),
        part,
        adapter.transposed,
      );
      change = (out, from) => addFactors(out, from, width, factors);
    } else {
      const l = toFloat32(await file.read(part.l));
      const along = alongOf(part, adapter.transposed, shape);
      change = (out, from) => scaleEntries(out, from, width, { l, along });
    }
    last = { name, change };
    return change;
  };
  const own = {
    folder,
    home: base.folder,
    config,
    names,
    files: [adapterConfigName, adapterWeightsName, ...(existsSync(configPath) ? ["config.json"] : [])],
    close: file.close,
  };
  const plain: Checkpoint = {
    ...own,
    entry: (name) => (whole.has(name) ? file.entries.get(whole.get(name)!) : base.entry(name)),
    ref: (name) => (whole.has(name) ? refIn(file.path, file.entries.get(whole.get(name)!)!) : base.ref(name)),
    read: async (name) => (whole.has(name) ? file.read(whole.get(name)!) : base.read(name)),
    readRange: async (name, start, length) =>
      whole.has(name) ? file.readRange(whole.get(name)!, start, length) : base.readRange(name, start, length),
  };
  return {
    ...own,
    adapter,
    adapted,
    replaced: [...whole.keys()].filter((name) => base.entry(name) && !headLike.test(name)),
    plain: () => plain,
    // In float32, wherever the base keeps it.
    entry: (name) => (adapted.has(name) ? { ...base.entry(name)!, dtype: "F32" } : plain.entry(name)),
    ref(name) {
      const part = adapted.get(name);
      if (!part) return plain.ref(name);
      const { shape } = base.entry(name)!;
      const width = shape.at(-1)!;
      const made: Adapted =
        part.kind === "lora"
          ? {
              kind: "lora",
              a: matrix(part.a),
              b: matrix(part.b),
              scale: part.scale,
              transposed: adapter.transposed,
              width,
            }
          : { kind: "ia3", l: matrix(part.l), along: alongOf(part, adapter.transposed, shape), width };
      return { ...base.ref(name), adapted: made };
    },
    async read(name) {
      const part = adapted.get(name);
      if (!part) return plain.read(name);
      const stored = await base.read(name);
      const out = Float32Array.from(toFloat32(stored));
      (await changeOf(name, part))(out, 0);
      return { dtype: "F32", shape: stored.shape, bytes: fromFloat32(out, "F32") };
    },
    async readRange(name, start, length) {
      const part = adapted.get(name);
      if (!part) return plain.readRange(name, start, length);
      const { dtype } = base.entry(name)!;
      const [from, count] = [start / 4, length / 4];
      const out = toFloat32({
        dtype,
        shape: [count],
        bytes: await base.readRange(name, from * dtypeBytes[dtype], count * dtypeBytes[dtype]),
      });
      (await changeOf(name, part))(out, from);
      return new Uint8Array(out.buffer, out.byteOffset, out.byteLength);
    },
  };
}

const headLike = /(^|\.)(classifier|score|qa_outputs|classification_head)\./;

/** Of a weight as it is stored; of a bias, one line. */
const alongOf = (
  { along }: Extract<AdapterPart, { kind: "ia3" }>,
  stored: boolean,
  shape: readonly number[],
): "rows" | "columns" => (shape.length > 1 && (along === "out") !== stored ? "rows" : "columns");

/** LoRA's factors of a weight as it is stored. A [rank, in], B [out, rank]. */
export function factorsOf(
  a: Float32Array,
  b: Float32Array,
  { rank, scale }: { readonly rank: number; readonly scale: number },
  isTransposed: boolean,
): Factors {
  const [input, out] = [a.length / rank, b.length / rank];
  return isTransposed
    ? { left: transposed(a, rank, input), right: transposed(b, out, rank), rank, scale }
    : { left: b, right: a, rank, scale };
}
