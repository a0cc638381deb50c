import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../errors.js";
import type { HostTensor } from "../tensor/dtype.js";
import { isRecord, readJson, readJsonObject } from "./files.js";
import { refuseQuantised } from "./quantised.js";
import { refIn, openSafetensors, type Ref, type SafetensorsFile, type TensorEntry } from "./safetensors.js";
import type { OtherTokenizer } from "./tokenizer-files.js";
import { openTorchFile } from "./torch-file.js";

const singleFile = "model.safetensors";
const indexName = "model.safetensors.index.json";
/** What older models have instead. */
const torchFile = "pytorch_model.bin";
const torchIndex = "pytorch_model.bin.index.json";

export const adapterConfigName = "adapter_config.json";

/** Whether a folder holds a PEFT adapter. */
export const isAdapter = (folder: string): boolean => existsSync(join(folder, adapterConfigName));

/** Opens a file of weights by what it is called. */
const openWeights = (path: string): Promise<SafetensorsFile> =>
  path.endsWith(".bin") ? openTorchFile(path) : openSafetensors(path);

/** A Hugging Face folder: config.json and one or more safetensors files, read a tensor at a time. */
export interface Checkpoint {
  readonly folder: string;
  /** Where its config.json and tokenizer lie, where that is another folder: of an adapter, its base's. */
  readonly home?: string | undefined;
  readonly config: Readonly<Record<string, unknown>>;
  /** How its weights were quantised, where they are read as the numbers that they stand for. */
  readonly dequantised?: string | undefined;
  /** How the result's tokenizer is made, where it is not that of its config's folder. */
  readonly tokenizer?: OtherTokenizer | undefined;
  /** Tensor names in file order. */
  readonly names: readonly string[];
  /** Weight files and config, relative to the folder: what a hash of this checkpoint covers. */
  readonly files: readonly string[];
  entry(name: string): TensorEntry | undefined;
  /** Where a tensor's bytes lie, and what is made of them. */
  ref(name: string): Ref;
  read(name: string): Promise<HostTensor>;
  /** Some bytes of a tensor, counted from its own start. */
  readRange(name: string, start: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** An index may only name plain files of its own folder: no separators, no drive letters, no "..". */
function checkShardName(indexPath: string, name: unknown): asserts name is string {
  if (typeof name !== "string" || name === "" || name === "." || name === ".." || /[\\/:\0]/.test(name)) {
    throw new UserError(
      `${indexPath}: it names the shard ${JSON.stringify(name)}; a shard must be a file of the same folder`,
    );
  }
}

async function readIndex(folder: string, name: string): Promise<Map<string, string>> {
  const path = join(folder, name);
  const index = await readJson(path);
  if (!isRecord(index) || !isRecord(index["weight_map"]))
    throw new UserError(`${path}: there is no "weight_map"`);
  const shards = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(index["weight_map"])) {
    checkShardName(path, shard);
    shards.set(tensor, shard);
  }
  return shards;
}

/** Folders that people take for a model's, by what lies in them, and what to give instead. */
const otherFolders: readonly (readonly [sign: RegExp, what: string])[] = [
  [/^adapter_config\.json$/, "it is an adapter: give the model that it was trained on with --base"],
  [/^model_index\.json$/, "it is a diffusers pipeline; give the folder of one of its models"],
  [
    /^(zero_to_fp32\.py|global_step\d+)$/,
    "it is a DeepSpeed checkpoint; gather its weights first (python zero_to_fp32.py . FOLDER)",
  ],
  [/\.gguf$/, "it holds a GGUF file, whose weights are packed; give the model that it was made from"],
  [
    /^(tf_model\.h5|flax_model\.msgpack|model\.onnx)$/,
    "its weights are of another library; load them in transformers (from_tf or from_flax) and save_pretrained",
  ],
];

/** The folder in which the last of a Trainer's checkpoints lies; undefined where there is none. */
function lastCheckpoint(files: readonly string[]): string | undefined {
  const steps = files.flatMap((file) => /^checkpoint-(\d+)$/.exec(file)?.[1] ?? []).map(Number);
  return steps.length ? `checkpoint-${Math.max(...steps)}` : undefined;
}

/** Says what a folder is that holds no model. */
async function missing(folder: string): Promise<never> {
  if (!existsSync(folder)) throw new UserError(`${folder}: there is no such folder`);
  const files = await readdir(folder);
  const trained = lastCheckpoint(files);
  if (trained !== undefined)
    throw new UserError(
      `${folder}: it is a Trainer's folder; give one of its checkpoints: ${join(folder, trained)}`,
    );
  const other = otherFolders.find(([sign]) => files.some((file) => sign.test(file)));
  if (other) throw new UserError(`${folder}: ${other[1]}`);
  throw new UserError(
    `${folder}: there is no ${singleFile} and no ${indexName}; is it a Hugging Face model folder?`,
  );
}

/** Whether weights lie in shards. @throws UserError where two saves lie in one folder */
async function isSharded(folder: string): Promise<boolean> {
  if (!existsSync(join(folder, indexName))) return false;
  if (!existsSync(join(folder, singleFile))) return true;
  const shards = new Set((await readIndex(folder, indexName)).values());
  if (shards.has(singleFile)) return true;
  const there = [...shards].filter((shard) => existsSync(join(folder, shard)));
  if (there.length === 0) return false;
  throw new UserError(
    `${folder}: it holds two saves, ${singleFile} and ${indexName} with ${there.length} shards; remove the older ` +
      `(transformers reads ${singleFile})`,
  );
}

/** The weight files of a folder, open, and which of them has a tensor. */
interface Shards {
  /** Names of the files, the index too. */
  readonly files: readonly string[];
  readonly fileOf: ReadonlyMap<string, SafetensorsFile>;
  close(): Promise<void>;
}

/** Tensor names of a file in the order of their bytes. */
const inFileOrder = ({ entries }: SafetensorsFile): string[] =>
  [...entries].sort(([, a], [, b]) => a.start - b.start).map(([name]) => name);

/** Opens the one file of a model. */
async function openSingle(folder: string, name: string): Promise<Shards> {
  const file = await openWeights(join(folder, name));
  return {
    files: [name],
    fileOf: new Map(inFileOrder(file).map((name) => [name, file])),
    close: file.close,
  };
}

/** Opens the shards that an index names. */
async function openSharded(folder: string, name: string): Promise<Shards> {
  const index = await readIndex(folder, name);
  const shards = [...new Set(index.values())].sort();
  const open: SafetensorsFile[] = [];
  const fileOf = new Map<string, SafetensorsFile>();
  const close = async () => {
    for (const file of open) await file.close();
  };
  try {
    for (const shard of shards) {
      const path = join(folder, shard);
      if (!existsSync(path))
        throw new UserError(`${folder}: the index names ${shard}, which is not there; fetch it again`);
      const file = await openWeights(path);
      open.push(file);
      for (const tensor of inFileOrder(file)) if (index.get(tensor) === shard) fileOf.set(tensor, file);
    }
    for (const [tensor, shard] of index) {
      if (!fileOf.has(tensor))
        throw new UserError(`${join(folder, shard)}: the index says it holds "${tensor}", but it does not`);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { files: [name, ...shards], fileOf, close };
}

/** How a folder's weights are opened, in the order in which transformers looks; undefined where it has none. */
async function shardsOf(folder: string): Promise<(() => Promise<Shards>) | undefined> {
  const has = (name: string): boolean => existsSync(join(folder, name));
  if (await isSharded(folder)) return () => openSharded(folder, indexName);
  const single = [singleFile, torchFile].find(has);
  if (single === singleFile || (single !== undefined && !has(torchIndex)))
    return () => openSingle(folder, single);
  return has(torchIndex) ? () => openSharded(folder, torchIndex) : undefined;
}

/**
 * Opens a folder with `config.json` and `model.safetensors` (or `pytorch_model.bin`) or shards behind an index.
 * Holds the headers; each `read` holds one tensor. Symbolic links are followed (the hub's cache is made of them).
 * @throws UserError where there is no model, or one whose weights are quantised (unless the caller sees to that)
 */
export async function openCheckpoint(
  folder: string,
  { quantised = false }: { readonly quantised?: boolean } = {},
): Promise<Checkpoint> {
  const openShards = await shardsOf(folder);
  if (!openShards) return missing(folder);
  const configPath = join(folder, "config.json");
  if (!existsSync(configPath)) throw new UserError(`${folder}: there is no config.json`);
  const config = await readJsonObject(configPath);
  const { files, fileOf, close } = await openShards();
  const holder = (name: string): SafetensorsFile => {
    const file = fileOf.get(name);
    if (!file) throw new UserError(`${folder}: there is no tensor "${name}"`);
    return file;
  };
  try {
    const entries = [...fileOf].map(([name, file]) => [name, file.entry(name)] as const);
    if (!quantised) refuseQuantised(folder, config, entries);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    folder,
    config,
    close,
    names: [...fileOf.keys()],
    files: ["config.json", ...files],
    entry: (name) => fileOf.get(name)?.entries.get(name),
    ref(name) {
      const { path, entry } = holder(name);
      return refIn(path, entry(name));
    },
    read: async (name) => holder(name).read(name),
    readRange: async (name, start, length) => holder(name).readRange(name, start, length),
  };
}

/** What a checkpoint's header says of a tensor. @throws UserError where it has no such tensor */
export function entryOf(checkpoint: Checkpoint, name: string): TensorEntry {
  const entry = checkpoint.entry(name);
  if (!entry) throw new UserError(`${checkpoint.folder}: there is no tensor "${name}"`);
  return entry;
}
