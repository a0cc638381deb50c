import { dtypeBytes, elements, type DType } from "../tensor/dtype.js";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, truncate, writeFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { atomicFile, writeText } from "./files.js";

/** What a header says of a tensor. */
export interface TensorHeader {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** One tensor to be written: its bytes are asked for when its turn comes, and let go of after. */
export interface TensorSource extends TensorHeader {
  bytes(): Promise<Uint8Array>;
}

const byteSize = (t: TensorHeader): number => elements(t.shape) * dtypeBytes[t.dtype];

/** The bytes before the tensors: the header's length and the header, padded to a multiple of 8. */
function headerOf(tensors: readonly TensorHeader[], metadata: Record<string, string>): Uint8Array {
  let offset = 0;
  const entries = tensors.map((tensor) => {
    const { name, dtype, shape } = tensor;
    const start = offset;
    offset += byteSize(tensor);
    return [name, { dtype, shape, data_offsets: [start, offset] }] as const;
  });
  // A tensor may have any name: `fromEntries` makes "__proto__" a name like the others.
  const header = Object.fromEntries<unknown>([["__metadata__", { format: "pt", ...metadata }], ...entries]);
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);
  padded.set(json, 8);
  return padded;
}

/** Writes one safetensors file: header first (all shapes are known), tensors streamed behind it in order. */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorSource[],
  metadata: Record<string, string> = {},
): Promise<void> {
  const padded = headerOf(tensors, metadata);
  await atomicFile(path, async (write) => {
    await write(padded);
    for (const tensor of tensors) {
      const bytes = await tensor.bytes();
      if (bytes.byteLength !== byteSize(tensor))
        throw new Error(`${tensor.name}: ${bytes.byteLength} bytes for ${byteSize(tensor)}`);
      await write(bytes);
    }
  });
}

/** Splits tensors, in order, into shards of at most `limit` bytes (a larger tensor stands alone). */
export function planShards<T extends TensorHeader>(tensors: readonly T[], limit: number): T[][] {
  let shard: T[] = [];
  const shards = [shard];
  let room = limit;
  for (const tensor of tensors) {
    const size = byteSize(tensor);
    if (room < size && shard.length > 0) {
      shard = [];
      shards.push(shard);
      room = limit;
    }
    shard.push(tensor);
    room -= size;
  }
  return shards;
}

/** Removes the weights that an earlier write left. */
export async function removeWeights(folder: string): Promise<void> {
  if (!existsSync(folder)) return;
  const stale = (await readdir(folder)).filter((file) =>
    /^(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/.test(file),
  );
  // The index first: without it the shards are no checkpoint.
  for (const file of stale.sort().toReversed()) await rm(join(folder, file));
}

const numbered = (i: number) => String(i).padStart(5, "0");

/** A weight file and its tensors. */
interface Shard<T extends TensorHeader> {
  readonly file: string;
  readonly tensors: readonly T[];
}

/** Plans the weight files of a model. */
function planFiles<T extends TensorHeader>(tensors: readonly T[], shardBytes: number): Shard<T>[] {
  const shards = planShards(tensors, shardBytes);
  if (shards.length === 1) return [{ file: "model.safetensors", tensors }];
  const count = numbered(shards.length);
  return shards.map((part, i) => ({
    file: `model-${numbered(i + 1)}-of-${count}.safetensors`,
    tensors: part,
  }));
}

/** Writes the index of several shards; one needs none. @returns the names of the files, the index too */
async function writeIndex(folder: string, shards: readonly Shard<TensorHeader>[]): Promise<string[]> {
  const files = shards.map(({ file }) => file);
  if (files.length === 1) return files;
  const weight_map = Object.fromEntries(
    shards.flatMap(({ file, tensors }) => tensors.map(({ name }) => [name, file])),
  );
  const total_size = shards.flatMap(({ tensors }) => tensors).reduce((sum, one) => sum + byteSize(one), 0);
  const index = "model.safetensors.index.json";
  await writeText(join(folder, index), { metadata: { total_size }, weight_map });
  return [...files, index];
}

/**
 * Writes `model.safetensors`, or shards and their index where the whole is larger than `shardBytes`.
 * Holds one tensor at a time. What an earlier write left is removed first and the index comes last, so
 * that a write that is cut off leaves nothing that could be taken for a checkpoint.
 * @returns the names of the files written
 */
export async function writeWeights(
  folder: string,
  tensors: readonly TensorSource[],
  shardBytes: number,
): Promise<string[]> {
  const shards = planFiles(tensors, shardBytes);
  await removeWeights(folder);
  for (const shard of shards) await writeSafetensors(join(folder, shard.file), shard.tensors);
  return writeIndex(folder, shards);
}

/** Where a tensor's bytes go, in a file that is not yet what it is called. */
export interface Slot {
  readonly path: string;
  readonly position: number;
}

/** Weight files with their headers written, to be filled in any order and by any thread. */
export interface ReservedWeights {
  /** One a tensor, in their order. */
  readonly slots: readonly Slot[];
  /** Begins to bring to the disk what has been written, while more is. */
  flush(): void;
  /** Gives the filled files their names; what an earlier write left goes. @returns the names of the files */
  commit(): Promise<string[]>;
  /** Removes them. */
  abort(): Promise<void>;
}

/** A weight file under the name that it has until all is well. */
interface OpenShard {
  readonly temporary: string;
  readonly slots: readonly Slot[];
  readonly handle: FileHandle;
}

/** Makes a file of its full size, with its header written. */
async function reserveShard(temporary: string, tensors: readonly TensorHeader[]): Promise<OpenShard> {
  const header = headerOf(tensors, {});
  await writeFile(temporary, header, { flag: "wx" });
  const slots: Slot[] = [];
  let position = header.length;
  for (const tensor of tensors) {
    slots.push({ path: temporary, position });
    position += byteSize(tensor);
  }
  await truncate(temporary, position);
  return { temporary, slots, handle: await open(temporary, "r+") };
}

/**
 * {@link writeWeights} for who fills the files himself: temporary files of their full size, renamed at the end.
 * @param file the one file that all is written to, in the place of `model.safetensors` or shards
 */
export async function reserveWeights(
  folder: string,
  tensors: readonly TensorHeader[],
  shardBytes: number,
  file?: string,
): Promise<ReservedWeights> {
  const shards = file === undefined ? planFiles(tensors, shardBytes) : [{ file, tensors }];
  await mkdir(folder, { recursive: true });
  const planned = shards.map((shard) => ({
    ...shard,
    path: join(folder, shard.file),
    temporary: join(folder, `${shard.file}.${randomBytes(4).toString("hex")}.tmp`),
  }));
  const reserved: OpenShard[] = [];
  const closeAll = async () => {
    for (const { handle } of reserved.splice(0)) await handle.close();
  };
  let flushing: Promise<void> | undefined;
  const abort = async () => {
    await flushing;
    await closeAll();
    for (const { temporary } of planned) await rm(temporary, { force: true });
  };
  try {
    for (const shard of planned) reserved.push(await reserveShard(shard.temporary, shard.tensors));
  } catch (error) {
    await abort();
    throw error;
  }
  return {
    slots: reserved.flatMap(({ slots }) => slots),
    abort,
    flush() {
      // A failure shows again when the file is synced in the end.
      flushing ??= Promise.allSettled(reserved.map(({ handle }) => handle.datasync()))
        .then(() => {})
        .finally(() => (flushing = undefined));
    },
    async commit() {
      await flushing;
      await removeWeights(folder);
      for (const { handle } of reserved) await handle.sync();
      await closeAll();
      for (const { temporary, path } of planned) await rename(temporary, path);
      return file === undefined ? writeIndex(folder, shards) : [file];
    },
  };
}
