import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../errors.js";
import type { HostTensor } from "../tensor/dtype.js";
import { readJson } from "./files.js";
import { refIn, type Ref } from "./ref.js";
import { openSafetensors, type SafetensorsFile, type TensorEntry } from "./safetensors.js";

const single = "model.safetensors";
const indexName = "model.safetensors.index.json";

/** A Hugging Face folder: config.json and one or more safetensors files, read a tensor at a time. */
export interface Checkpoint {
  readonly folder: string;
  /** Where its config.json and tokenizer lie, where that is another folder: of an adapter, its base's. */
  readonly home?: string | undefined;
  readonly config: Readonly<Record<string, unknown>>;
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

async function readIndex(folder: string): Promise<Map<string, string>> {
  const path = join(folder, indexName);
  const index = (await readJson(path)) as { weight_map?: unknown };
  const map = index?.weight_map;
  if (typeof map !== "object" || map === null) throw new UserError(`${path}: there is no "weight_map"`);
  const shards = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(map)) {
    checkShardName(path, shard);
    shards.set(tensor, shard);
  }
  return shards;
}

async function missing(folder: string): Promise<never> {
  if (!existsSync(folder)) throw new UserError(`${folder}: there is no such folder`);
  const files = await readdir(folder);
  if (files.some((file) => /^pytorch_model.*\.bin/.test(file))) {
    throw new UserError(
      `${folder}: it holds pytorch_model.bin only; save the model as safetensors ` +
        "(save_pretrained does so by default)",
    );
  }
  throw new UserError(
    `${folder}: there is no ${single} and no ${indexName}; is it a Hugging Face model folder?`,
  );
}

/**
 * Opens a folder with `config.json` and `model.safetensors` or shards behind an index.
 * Holds the headers; each `read` holds one tensor. Symbolic links are followed (the hub's cache is made of them).
 */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const sharded = existsSync(join(folder, indexName));
  if (!sharded && !existsSync(join(folder, single))) await missing(folder);
  const configPath = join(folder, "config.json");
  if (!existsSync(configPath)) throw new UserError(`${folder}: there is no config.json`);
  const config = (await readJson(configPath)) as Record<string, unknown>;
  if (typeof config !== "object" || config === null) throw new UserError(`${configPath}: not a JSON object`);

  const index = sharded ? await readIndex(folder) : undefined;
  const shards = index ? [...new Set(index.values())].sort() : [single];
  const open = new Map<string, SafetensorsFile>();
  const owner = new Map<string, SafetensorsFile>();
  const close = async () => {
    for (const file of open.values()) await file.close();
  };
  try {
    for (const shard of shards) {
      const path = join(folder, shard);
      if (!existsSync(path))
        throw new UserError(`${folder}: the index names ${shard}, which is not there; fetch it again`);
      const file = await openSafetensors(path);
      open.set(shard, file);
      const byOffset = [...file.entries].sort(([, a], [, b]) => a.start - b.start);
      for (const [name] of byOffset) if (!index || index.get(name) === shard) owner.set(name, file);
    }
    for (const [name, shard] of index ?? []) {
      if (!owner.has(name))
        throw new UserError(`${join(folder, shard)}: the index says it holds "${name}", but it does not`);
    }
  } catch (error) {
    await close();
    throw error;
  }
  const fileOf = (name: string): SafetensorsFile => {
    const file = owner.get(name);
    if (!file) throw new UserError(`${folder}: there is no tensor "${name}"`);
    return file;
  };
  return {
    folder,
    config,
    close,
    names: [...owner.keys()],
    files: ["config.json", ...(index ? [indexName] : []), ...shards],
    entry: (name) => owner.get(name)?.entries.get(name),
    ref(name) {
      const { path, entries } = fileOf(name);
      return refIn(path, entries.get(name)!);
    },
    read: async (name) => fileOf(name).read(name),
    readRange: async (name, start, length) => fileOf(name).readRange(name, start, length),
  };
}
