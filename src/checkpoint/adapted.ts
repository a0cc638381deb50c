import { basename, join } from "node:path";
import { existsSync } from "node:fs";
import { at } from "../at.js";
import { dtypeBytes, elements, fromFloat32, toFloat32 } from "../tensor/dtype.js";
import { loraChange, type EntryChange } from "../tensor/lora.js";
import { scaleEntries } from "../tensor/lowrank.js";
import type { AdaptedPart, AdaptedWeights, Adapter } from "./adapter.js";
import { readJsonObject } from "./files.js";
import { entryOf, type Checkpoint, adapterConfigName } from "./folder.js";
import { findModules } from "./adapter-places.js";
import { refIn, type Adapted, type MatrixRef, type SafetensorsFile } from "./safetensors.js";

export interface AdaptedCheckpoint extends Checkpoint {
  readonly adapter: Adapter;
  readonly adapted: AdaptedWeights;
  /**
   * Tensors of the base that the adapter holds whole (biases, embeddings), heads aside: no adapter of
   * low rank can say them.
   */
  readonly replaced: readonly string[];
  /** Tensors of a head that the adapter holds, and of these, those that the base has too. */
  readonly heads: readonly string[];
  readonly baseHeads: readonly string[];
  /** The same without the products: the base's weights, and what the adapter holds whole. */
  plain(): Checkpoint;
}

/**
 * What keeps an adapter from being merged as one, for a message: DoRA, of which what it makes of a weight is no sum, or
 * experts that it adapts as one. Such adapters are folded into their base.
 */
export function whyFolded({ adapted }: AdaptedCheckpoint): string | undefined {
  const parts = [...adapted.values()].filter((part) => part.kind === "lora");
  if (parts.some(({ magnitude }) => magnitude !== undefined)) return "DoRA";
  if (parts.some(({ experts }) => experts)) return "of experts that are adapted as one (target_parameters)";
  return undefined;
}

/** Of a base with an adapter, what its adapted weights are made of. */
interface AdaptedSource {
  readonly base: Checkpoint;
  readonly adapter: Adapter;
}

/** Reads what a part does to a weight. */
async function readChange(
  { base, adapter }: AdaptedSource,
  name: string,
  part: AdaptedPart,
): Promise<EntryChange> {
  const { file } = adapter;
  const { transposed } = part;
  const { shape } = entryOf(base, name);
  const width = at(shape, -1);
  const read = async (tensor: string) => toFloat32(await file.read(tensor));
  if (part.kind === "lora") {
    const lengths = part.magnitude === undefined ? undefined : await read(part.magnitude);
    return loraChange({ ...part, a: await read(part.a), b: await read(part.b), lengths }, width);
  }
  const l = await read(part.l);
  const along = alongOf(part, transposed, shape);
  return (out, from) => scaleEntries(out, from, width, { l, along });
}

/** {@link readChange} for weights that are read in pieces: that of the weight read last is held. */
function changeReader(source: AdaptedSource): (name: string, part: AdaptedPart) => Promise<EntryChange> {
  let last: { name: string; change: EntryChange } | undefined;
  return async (name, part) => {
    if (last?.name !== name) last = { name, change: await readChange(source, name, part) };
    return last.change;
  };
}

/** Where the matrices lie from which a weight is made. */
function adaptedRef({ base, adapter }: AdaptedSource, name: string, part: AdaptedPart): Adapted {
  const { file } = adapter;
  const { transposed } = part;
  const { shape } = entryOf(base, name);
  const width = at(shape, -1);
  const matrix = (tensor: string): MatrixRef => {
    const entry = file.entry(tensor);
    return { ...refIn(file.path, entry), rows: at(entry.shape, 0), columns: at(entry.shape, 1) };
  };
  if (part.kind === "ia3")
    return { kind: "ia3", l: matrix(part.l), along: alongOf(part, transposed, shape), width };
  const { a, b, rank, scale, magnitude, experts } = part;
  const lora = { kind: "lora", a: matrix(a), b: matrix(b), rank, scale, transposed, width, experts } as const;
  if (magnitude === undefined) return lora;
  const entry = file.entry(magnitude);
  return { ...lora, magnitude: { ...refIn(file.path, entry), rows: elements(entry.shape), columns: 1 } };
}

/** What is asked of a checkpoint tensor by tensor. */
type TensorAccess = Pick<Checkpoint, "entry" | "ref" | "read" | "readRange">;

/**
 * A checkpoint with tensors of a file in the place of its own.
 * @param whole the tensor's name → its name in the file
 */
function withWhole(
  checkpoint: Checkpoint,
  file: SafetensorsFile,
  whole: ReadonlyMap<string, string>,
): Checkpoint {
  const { path, entry, read, readRange } = file;
  const ofFile: TensorAccess = { entry, ref: (name) => refIn(path, entry(name)), read, readRange };
  const holder = (name: string): { access: TensorAccess; stored: string } => {
    const stored = whole.get(name);
    if (stored === undefined) return { access: checkpoint, stored: name };
    return { access: ofFile, stored };
  };
  return {
    ...checkpoint,
    names: [...checkpoint.names, ...[...whole.keys()].filter((name) => !checkpoint.entry(name))],
    entry(name) {
      const { access, stored } = holder(name);
      return access.entry(stored);
    },
    ref(name) {
      const { access, stored } = holder(name);
      return access.ref(stored);
    },
    async read(name) {
      const { access, stored } = holder(name);
      return access.read(stored);
    },
    async readRange(name, start, length) {
      const { access, stored } = holder(name);
      return access.readRange(stored, start, length);
    },
  };
}

/** An adapter's folder may say more of the model than the base's: its classes. */
async function adaptedConfig({
  base,
  adapter,
}: AdaptedSource): Promise<Pick<Checkpoint, "config" | "files">> {
  const files = [adapterConfigName, basename(adapter.file.path)];
  const path = join(adapter.folder, "config.json");
  if (existsSync(path)) return { config: await readJsonObject(path), files: [...files, "config.json"] };
  const { label2id: _, ...config } = base.config;
  return { config, files };
}

const headLike = /(^|\.)(classifier|score|qa_outputs|classification_head)\./;

/**
 * A base with an adapter, seen as a checkpoint of its own: its weights are base + scale · B A (or the
 * base's, scaled) and are made when they are read, in float32. Held: the factors of the weight read
 * last.
 */
export async function adaptedCheckpoint(base: Checkpoint, adapter: Adapter): Promise<AdaptedCheckpoint> {
  const { file, folder } = adapter;
  const { adapted, whole } = findModules(base, adapter);
  const source: AdaptedSource = { base, adapter };
  const changeOf = changeReader(source);
  const plain: Checkpoint = {
    ...withWhole(base, file, whole),
    folder,
    home: base.folder,
    ...(await adaptedConfig(source)),
    close: file.close,
  };
  return {
    ...plain,
    adapter,
    adapted,
    replaced: [...whole.keys()].filter((name) => base.entry(name) && !headLike.test(name)),
    heads: [...whole.keys()].filter((name) => !base.entry(name) || headLike.test(name)),
    baseHeads: [...whole.keys()].filter((name) => base.entry(name) && headLike.test(name)),
    plain: () => plain,
    // In float32, wherever the base keeps it.
    entry: (name) => (adapted.has(name) ? { ...entryOf(base, name), dtype: "F32" } : plain.entry(name)),
    ref(name) {
      const part = adapted.get(name);
      if (!part) return plain.ref(name);
      return { ...base.ref(name), adapted: adaptedRef(source, name, part) };
    },
    async read(name) {
      const part = adapted.get(name);
      if (!part) return plain.read(name);
      const stored = await base.read(name);
      const out = Float32Array.from(toFloat32(stored));
      const change = await changeOf(name, part);
      change(out, 0);
      return { dtype: "F32", shape: stored.shape, bytes: fromFloat32(out, "F32") };
    },
    async readRange(name, start, length) {
      const part = adapted.get(name);
      if (!part) return plain.readRange(name, start, length);
      const { dtype } = entryOf(base, name);
      const [from, count] = [start / 4, length / 4];
      const bytes = await base.readRange(name, from * dtypeBytes[dtype], count * dtypeBytes[dtype]);
      const out = toFloat32({ dtype, shape: [count], bytes });
      const change = await changeOf(name, part);
      change(out, from);
      return new Uint8Array(out.buffer, out.byteOffset, out.byteLength);
    },
  };
}

/** Of a weight as it is stored; of a bias, one line. */
const alongOf = (
  { along }: Extract<AdaptedPart, { kind: "ia3" }>,
  stored: boolean,
  shape: readonly number[],
): "rows" | "columns" => (shape.length > 1 && (along === "out") !== stored ? "rows" : "columns");
