import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, truncate, writeFile, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { dtypeBytes, elements, type DType } from "../tensor/dtype.js";
import { atomicFile, writeText } from "./files.js";

/** What a header says of a tensor. */
export interface TensorShape {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** One tensor to be written: its bytes are asked for when its turn comes, and let go of after. */
export interface TensorSource extends TensorShape {
  bytes(): Promise<Uint8Array>;
}

const sizeOf = (t: TensorShape): number => elements(t.shape) * dtypeBytes[t.dtype];

/** The bytes before the tensors: the header's length and the header, padded to a multiple of 8. */
function headerOf(tensors: readonly TensorShape[], metadata: Record<string, string>): Uint8Array {
  // Without a prototype, so that a tensor may have any name.
  const header = Object.create(null) as Record<string, unknown>;
  header["__metadata__"] = { format: "pt", ...metadata };
  let offset = 0;
  for (const tensor of tensors) {
    header[tensor.name] = {
      dtype: tensor.dtype,
      shape: tensor.shape,
      data_offsets: [offset, (offset += sizeOf(tensor))],
    };
  }
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
      if (bytes.byteLength !== sizeOf(tensor))
        throw new Error(`${tensor.name}: ${bytes.byteLength} bytes for ${sizeOf(tensor)}`);
      await write(bytes);
    }
  });
}

/** Splits tensors, in order, into shards of at most `limit` bytes (a larger tensor stands alone). */
export function planShards<T extends TensorShape>(tensors: readonly T[], limit: number): T[][] {
  const shards: T[][] = [];
  let room = -1;
  for (const tensor of tensors) {
    const size = sizeOf(tensor);
    if (room < size || shards.length === 0) {
      shards.push([]);
      room = limit;
    }
    shards.at(-1)!.push(tensor);
    room -= size;
  }
  return shards.length ? shards : [[]];
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
/** What the weight files of so many shards are called. */
const shardNames = (count: number): string[] =>
  count === 1
    ? ["model.safetensors"]
    : Array.from({ length: count }, (_, i) => `model-${numbered(i + 1)}-of-${numbered(count)}.safetensors`);

/** Writes the index of several shards; one needs none. */
async function writeIndex(folder: string, shards: readonly (readonly TensorShape[])[]): Promise<string[]> {
  const files = shardNames(shards.length);
  if (files.length === 1) return files;
  const weightMap = Object.create(null) as Record<string, string>;
  for (const [i, shard] of shards.entries()) for (const { name } of shard) weightMap[name] = files[i]!;
  const total_size = shards.flat().reduce((sum, tensor) => sum + sizeOf(tensor), 0);
  await writeText(join(folder, "model.safetensors.index.json"), {
    metadata: { total_size },
    weight_map: weightMap,
  });
  return [...files, "model.safetensors.index.json"];
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
  const shards = planShards(tensors, shardBytes);
  await removeWeights(folder);
  for (const [i, file] of shardNames(shards.length).entries())
    await writeSafetensors(join(folder, file), shards[i]!);
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

/** {@link writeWeights} for who fills the files himself: temporary files of their full size, renamed at the end. */
export async function reserveWeights(
  folder: string,
  tensors: readonly TensorShape[],
  shardBytes: number,
  file?: string,
): Promise<ReservedWeights> {
  const shards = planShards(tensors, shardBytes);
  await mkdir(folder, { recursive: true });
  const names = file === undefined ? shardNames(shards.length) : [file];
  const paths = names.map((file) => join(folder, `${file}.${randomBytes(4).toString("hex")}.tmp`));
  const handles: FileHandle[] = [];
  const closeAll = async () => {
    for (const handle of handles.splice(0)) await handle.close();
  };
  const abort = async () => {
    await flushing;
    await closeAll();
    for (const path of paths) await rm(path, { force: true });
  };
  let flushing: Promise<void> | undefined;
  const slots: Slot[] = [];
  try {
    for (const [i, shard] of shards.entries()) {
      const path = paths[i]!;
      const header = headerOf(shard, {});
      await writeFile(path, header, { flag: "wx" });
      let position = header.length;
      for (const tensor of shard) {
        slots.push({ path, position });
        position += sizeOf(tensor);
      }
      await truncate(path, position);
      handles.push(await open(path, "r+"));
    }
  } catch (error) {
    await abort();
    throw error;
  }
  return {
    slots,
    abort,
    flush() {
      // A failure shows again when the file is synced in the end.
      flushing ??= Promise.all(handles.map((handle) => handle.datasync()))
        .then(
          () => {},
          () => {},
        )
        .finally(() => (flushing = undefined));
    },
    async commit() {
      await flushing;
      await removeWeights(folder);
      for (const handle of handles) await handle.sync();
      await closeAll();
      for (const [i, path] of paths.entries()) await rename(path, join(folder, names[i]!));
      return file === undefined ? writeIndex(folder, shards) : names;
    },
  };
}
