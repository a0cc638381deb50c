import { readFile } from "node:fs/promises";
import { gunzipSync } from "node:zlib";
import { messageOf, UserError } from "../errors.js";
import { mostUnpackedBytes } from "./npz.js";

/** An array of bytes out of an idx file, MNIST's form. */
export interface IdxArray {
  readonly shape: readonly number[];
  readonly values: Uint8Array;
}

/** Reads an idx file of bytes, packed by gzip or not. @throws UserError where it is none */
export async function readIdx(path: string): Promise<IdxArray> {
  let bytes = await readFile(path);
  try {
    if (path.endsWith(".gz")) bytes = gunzipSync(bytes, { maxOutputLength: mostUnpackedBytes });
  } catch (error) {
    throw new UserError(`${path}: cannot be unpacked (${messageOf(error)})`);
  }
  // Two zeros, the type (8: bytes), the number of axes, then the length of each, most significant byte first.
  const [zero, zeroToo, type, axes = 0] = bytes;
  const isIdx = zero === 0 && zeroToo === 0 && type === 8 && axes >= 1 && axes <= 4;
  if (!isIdx || bytes.length < 4 + 4 * axes) throw new UserError(`${path}: not an idx file of bytes`);
  const shape = Array.from({ length: axes }, (_, i) => bytes.readUInt32BE(4 + 4 * i));
  const values = new Uint8Array(bytes.buffer, bytes.byteOffset + 4 + 4 * axes, bytes.length - 4 - 4 * axes);
  const expected = shape.reduce((a, b) => a * b, 1);
  if (values.length !== expected)
    throw new UserError(`${path}: it holds ${values.length} bytes, its header says ${expected}`);
  return { shape, values };
}
