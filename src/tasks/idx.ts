import { readFile } from "node:fs/promises";
import { gunzipSync } from "node:zlib";
import { UserError } from "../errors.js";

/** An array of bytes out of an idx file, MNIST's form. */
export interface IdxArray {
  readonly shape: readonly number[];
  readonly values: Uint8Array;
}

/** Largest size a file may unpack to. */
const mostBytes = 4e9;

/** Reads an idx file of bytes, packed by gzip or not. @throws UserError where it is none */
export async function readIdx(path: string): Promise<IdxArray> {
  let bytes = await readFile(path);
  try {
    if (path.endsWith(".gz")) bytes = gunzipSync(bytes, { maxOutputLength: mostBytes });
  } catch (error) {
    throw new UserError(`${path}: cannot be unpacked (${(error as Error).message})`);
  }
  // Two zeros, the type (8: bytes), the number of axes, then the length of each, most significant byte first.
  const axes = bytes[3] ?? 0;
  if (bytes.length < 4 + 4 * axes || bytes.readUInt16BE(0) !== 0 || bytes[2] !== 8 || axes < 1 || axes > 4)
    throw new UserError(`${path}: not an idx file of bytes`);
  const shape = Array.from({ length: axes }, (_, i) => bytes.readUInt32BE(4 + 4 * i));
  const values = new Uint8Array(bytes.buffer, bytes.byteOffset + 4 + 4 * axes, bytes.length - 4 - 4 * axes);
  const expected = shape.reduce((a, b) => a * b, 1);
  if (values.length !== expected)
    throw new UserError(`${path}: it holds ${values.length} bytes, its header says ${expected}`);
  return { shape, values };
}
