import { readFile } from "node:fs/promises";
import { unzipSync } from "fflate";
import { isSystemError, messageOf, UserError } from "../errors.js";
import { elements } from "../tensor/dtype.js";

/** An array of whole numbers out of a NumPy file. */
export interface NpyArray {
  readonly shape: readonly number[];
  readonly values:
    | Uint8Array
    | Int8Array
    | Uint16Array
    | Int16Array
    | Uint32Array
    | Int32Array
    | BigInt64Array;
}

/** NumPy's names of types, without their byte order. */
const arrayTypes = new Map(
  Object.entries({
    u1: Uint8Array,
    i1: Int8Array,
    u2: Uint16Array,
    i2: Int16Array,
    u4: Uint32Array,
    i4: Int32Array,
    i8: BigInt64Array,
    b1: Uint8Array,
  }),
);

/** Largest size a file may unpack to: beyond every set of this kind. */
export const mostUnpackedBytes = 2e9;

function parseNpy(bytes: Uint8Array, where: string): NpyArray {
  const fail: (what: string) => never = (what) => {
    throw new UserError(`${where}: ${what}`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 10 || view.getUint32(0) !== 0x934e554d) fail("not a NumPy array");
  // From version 2 on, the header's length takes four bytes.
  const [start, length] =
    view.getUint8(6) > 1 ? [12, view.getUint32(8, true)] : [10, view.getUint16(8, true)];
  if (start + length > bytes.length) fail("its header is longer than the file");
  const header = new TextDecoder().decode(bytes.subarray(start, start + length));
  const type = arrayTypes.get(/'descr':\s*'[<|]([a-z]\d)'/.exec(header)?.[1] ?? "");
  if (!type) fail(`its type must be of whole numbers, little-endian (${header.slice(0, 60)})`);
  const shape = /'shape':\s*\(([\d,\s]*)\)/
    .exec(header)?.[1]
    ?.split(",")
    .map((part) => part.trim())
    .filter(Boolean)
    .map(Number);
  if (!shape || /'fortran_order':\s*True/.test(header)) fail("its rows must follow each other (C order)");
  const data = bytes.slice(start + length);
  const expected = elements(shape) * type.BYTES_PER_ELEMENT;
  if (data.length !== expected) fail(`it holds ${data.length} bytes, its shape says ${expected}`);
  return { shape, values: new type(data.buffer) };
}

/** Some arrays of a NumPy archive, by name. Held: the archive and what is asked for. */
export async function readNpz(path: string, wanted: readonly string[]): Promise<Map<string, NpyArray>> {
  let total = 0;
  let files: Record<string, Uint8Array>;
  try {
    files = unzipSync(new Uint8Array(await readFile(path)), {
      filter: ({ name, originalSize }) =>
        wanted.includes(name.replace(/\.npy$/, "")) && (total += originalSize) <= mostUnpackedBytes,
    });
  } catch (error) {
    if (isSystemError(error)) throw error;
    throw new UserError(`${path}: not a NumPy archive (${messageOf(error)})`);
  }
  if (total > mostUnpackedBytes)
    throw new UserError(`${path}: it would unpack to more than ${mostUnpackedBytes / 1e9} GB`);
  return new Map(
    Object.entries(files).map(([name, bytes]) => [
      name.replace(/\.npy$/, ""),
      parseNpy(bytes, `${path}: ${name}`),
    ]),
  );
}
