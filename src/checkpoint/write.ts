import { existsSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { dtypeBytes, elements, type DType } from "../tensor/dtype.js";
import { atomicFile, writeText } from "./files.js";

/** One tensor to be written: its bytes are asked for when its turn comes, and let go of after. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  bytes(): Promise<Uint8Array>;
}

const sizeOf = (t: TensorSource): number => elements(t.shape) * dtypeBytes[t.dtype];

/** Writes one safetensors file: header first (all shapes are known), tensors streamed behind it in order. */
export async function writeSafetensors(path: string, tensors: readonly TensorSource[], metadata: Record<string, string> = {}): Promise<void> {
  // Without a prototype, so that a tensor may have any name.
  const header = Object.create(null) as Record<string, unknown>;
  header["__metadata__"] = { format: "pt", ...metadata };
  let offset = 0;
  for (const tensor of tensors) {
    header[tensor.name] = { dtype: tensor.dtype, shape: tensor.shape, data_offsets: [offset, (offset += sizeOf(tensor))] };
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(padded.buffer).setBigUint64(0, BigInt(padded.length - 8), true);
  padded.set(json, 8);
  await atomicFile(path, async (write) => {
    await write(padded);
    for (const tensor of tensors) {
      const bytes = await tensor.bytes();
      if (bytes.byteLength !== sizeOf(tensor)) throw new Error(`${tensor.name}: ${bytes.byteLength} bytes for ${sizeOf(tensor)}`);
      await write(bytes);
    }
  });
}

/** Splits tensors, in order, into shards of at most `limit` bytes (a larger tensor stands alone). */
export function planShards(tensors: readonly TensorSource[], limit: number): TensorSource[][] {
  const shards: TensorSource[][] = [];
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
  const stale = (await readdir(folder)).filter((file) => /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/.test(file));
  // The index first: without it the shards are no checkpoint.
  for (const file of stale.sort().toReversed()) await rm(join(folder, file));
}

/**
 * Writes `model.safetensors`, or shards and their index where the whole is larger than `shardBytes`.
 * Holds one tensor at a time. What an earlier write left is removed first and the index comes last, so that a write that
 * is cut off leaves nothing that could be taken for a checkpoint.
 * @returns the names of the files written
 */
export async function writeWeights(folder: string, tensors: readonly TensorSource[], shardBytes: number): Promise<string[]> {
  const shards = planShards(tensors, shardBytes);
  await removeWeights(folder);
  if (shards.length === 1) {
    await writeSafetensors(join(folder, "model.safetensors"), shards[0]!);
    return ["model.safetensors"];
  }
  const number = (i: number) => String(i).padStart(5, "0");
  const weightMap = Object.create(null) as Record<string, string>;
  const files: string[] = [];
  for (const [i, shard] of shards.entries()) {
    const file = `model-${number(i + 1)}-of-${number(shards.length)}.safetensors`;
    await writeSafetensors(join(folder, file), shard);
    for (const tensor of shard) weightMap[tensor.name] = file;
    files.push(file);
  }
  const total_size = tensors.reduce((sum, tensor) => sum + sizeOf(tensor), 0);
  await writeText(join(folder, "model.safetensors.index.json"), { metadata: { total_size }, weight_map: weightMap });
  return [...files, "model.safetensors.index.json"];
}
