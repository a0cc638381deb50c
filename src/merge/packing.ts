import { f32, i32 } from "../at.js";
import { decodeHalves } from "../halves.js";
import { fromFloat32, joined, type RowShape } from "../tensor/dtype.js";

/**
 * How a task vector is kept: 4, 2 or 1 bytes an entry (int8 with a scale a row), or 8 bytes for each
 * entry that is left after trimming.
 */
export const packings = ["f32", "bf16", "int8", "sparse"] as const;
export type Packing = (typeof packings)[number];

/** How a base is kept on the device: in float32, as its file has it, in eight or in four bits. */
export const basePackings = ["f32", "file", "int8", "int4"] as const;
export type BasePacking = (typeof basePackings)[number];

/** Bytes an entry of a task vector takes. `density`: the part of the entries that a sparse one keeps. */
export const bytesPerEntry = (packing: Packing, density: number): number =>
  ({ f32: 4, bf16: 2, int8: 1, sparse: 8 * density })[packing];

/** Entries in one 32-bit word. */
const perWord = { bf16: 2, int8: 4 };

/** One expert's task vector of some rows, packed, in host memory. */
export type PackedRows =
  /** [rows, width] */
  | { readonly packing: "f32"; readonly data: Float32Array }
  /** [rows, words], two in each 32-bit word */
  | { readonly packing: "bf16" | "f16"; readonly data: Int32Array }
  /** [rows, words], four in each 32-bit word; [rows], what an int8 of a row is multiplied by */
  | { readonly packing: "int8"; readonly data: Int32Array; readonly scales: Float32Array }
  /** The kept numbers, and where each stands in rows × width, rising. */
  | { readonly packing: "sparse"; readonly data: Float32Array; readonly index: Int32Array };

/** A packing of a base, too. */
export type WordPacking = Packing | "f16";
type Packed<P extends WordPacking> = Extract<PackedRows, { packing: P }>;

/** Several experts' rows, which are all packed alike. @throws TypeError where one is not */
export function packedAs<P extends WordPacking>(vectors: readonly PackedRows[], packing: P): Packed<P>[] {
  const isSo = (vector: PackedRows): vector is Packed<P> => vector.packing === packing;
  const alike = vectors.filter(isSo);
  if (alike.length < vectors.length)
    throw new TypeError(
      `task vectors packed as ${vectors.map((one) => one.packing).join(", ")} side by side`,
    );
  return alike;
}

/**
 * Packs rows of a task vector. bfloat16 rounds to nearest even; int8 rounds x · 127 / max|row| and
 * keeps max|row| / 127 as the row's scale, so its error is at most half of that; sparse keeps what is
 * not smaller than `threshold` and not 0.
 */
export function packRows(
  values: Float32Array,
  shape: RowShape,
  packing: WordPacking,
  threshold = 0,
): PackedRows {
  switch (packing) {
    case "f32":
      return { packing, data: values };
    case "bf16":
    case "f16":
      return packHalves(values, shape, packing);
    case "int8":
      return packBytes(values, shape);
    default:
      return packSparse(values, threshold);
  }
}

function packHalves(
  values: Float32Array,
  { rows, width }: RowShape,
  packing: "bf16" | "f16",
): Packed<"bf16" | "f16"> {
  const dtype = ({ bf16: "BF16", f16: "F16" } as const)[packing];
  const words = Math.ceil(width / perWord.bf16);
  const data = new Int32Array(rows * words);
  const bytes = new Uint8Array(data.buffer);
  for (let r = 0; r < rows; r++)
    bytes.set(fromFloat32(values.subarray(r * width, (r + 1) * width), dtype), 4 * r * words);
  return { packing, data };
}

function packBytes(values: Float32Array, { rows, width }: RowShape): Packed<"int8"> {
  const words = Math.ceil(width / perWord.int8);
  const data = new Int32Array(rows * words);
  const scales = new Float32Array(rows);
  for (let r = 0; r < rows; r++) {
    const row = values.subarray(r * width, (r + 1) * width);
    let largest = 0;
    for (let i = 0; i < width; i++) {
      const size = Math.abs(f32(row, i));
      if (size > largest) largest = size;
    }
    const scale = Math.fround(largest / 127);
    scales[r] = scale;
    if (!(scale > 0)) continue;
    const bytes = new Int8Array(data.buffer, 4 * r * words, width);
    for (let i = 0; i < width; i++) bytes[i] = Math.max(-127, Math.min(127, Math.round(f32(row, i) / scale)));
  }
  return { packing: "int8", data, scales };
}

function packSparse(values: Float32Array, threshold: number): Packed<"sparse"> {
  const isKept = (x: number) => x !== 0 && Math.abs(x) >= threshold;
  let kept = 0;
  for (const x of values) if (isKept(x)) kept++;
  const [data, index] = [new Float32Array(kept), new Int32Array(kept)];
  let at = 0;
  for (let i = 0; i < values.length; i++) {
    const x = f32(values, i);
    if (!isKept(x)) continue;
    data[at] = x;
    index[at++] = i;
  }
  return { packing: "sparse", data, index };
}

/** Packed rows as float32 again. */
export function unpackRows(packed: PackedRows, shape: RowShape): Float32Array {
  switch (packed.packing) {
    case "f32":
      return packed.data;
    case "bf16":
    case "f16":
      return unpackHalves(packed, shape);
    case "int8":
      return unpackBytes(packed, shape);
    default:
      return unpackSparse(packed, shape);
  }
}

function unpackHalves(
  { packing, data }: Extract<PackedRows, { packing: "bf16" | "f16" }>,
  { rows, width }: RowShape,
): Float32Array {
  const out = new Float32Array(rows * width);
  const words = Math.ceil(width / perWord.bf16);
  const dtype = ({ bf16: "BF16", f16: "F16" } as const)[packing];
  for (let r = 0; r < rows; r++) {
    const halves = new Uint16Array(data.buffer, data.byteOffset + 4 * r * words, width);
    decodeHalves(halves, dtype, out.subarray(r * width, (r + 1) * width));
  }
  return out;
}

function unpackBytes({ data, scales }: Packed<"int8">, { rows, width }: RowShape): Float32Array {
  const out = new Float32Array(rows * width);
  const words = Math.ceil(width / perWord.int8);
  for (let r = 0; r < rows; r++) {
    const scale = f32(scales, r);
    out.set(new Int8Array(data.buffer, data.byteOffset + 4 * r * words, width), r * width);
    for (let i = r * width; i < (r + 1) * width; i++) out[i] = f32(out, i) * scale;
  }
  return out;
}

function unpackSparse({ data, index }: Packed<"sparse">, { rows, width }: RowShape): Float32Array {
  const out = new Float32Array(rows * width);
  for (let i = 0; i < index.length; i++) out[i32(index, i)] = f32(data, i);
  return out;
}

/** Where a rising array first reaches `value`. */
function lowerBound(sorted: Int32Array, value: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (i32(sorted, middle) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Rows `from` to before `to`. */
type RowRun = readonly [from: number, to: number];

/** Runs of rows out of packed ones. What lies in one piece is a view, not a copy. */
export function sliceRows(
  packed: PackedRows,
  runs: readonly RowRun[],
  { rows, width }: RowShape,
): PackedRows {
  const isWhole = runs.length === 1 && runs.every(([from, to]) => from === 0 && to === rows);
  if (isWhole) return packed;
  switch (packed.packing) {
    case "sparse":
      return sliceSparse(packed, runs, width);
    case "int8":
      return {
        ...packed,
        data: cutRows(packed.data, runs, rows),
        scales: cutRows(packed.scales, runs, rows),
      };
    case "bf16":
    case "f16":
      return { ...packed, data: cutRows(packed.data, runs, rows) };
    default:
      return { ...packed, data: cutRows(packed.data, runs, rows) };
  }
}

/** Runs out of an array of so many rows. */
function cutRows<T extends Float32Array | Int32Array>(
  all: { readonly length: number; subarray(from: number, to: number): T },
  runs: readonly RowRun[],
  rows: number,
): T {
  const each = all.length / rows;
  return oneOrJoined(runs.map(([from, to]) => all.subarray(from * each, to * each)));
}

/** Pieces one after the other; a single one is itself, not a copy. */
export function oneOrJoined<T extends Float32Array | Int32Array | Uint8Array>(pieces: readonly T[]): T {
  const [first] = pieces;
  if (first && pieces.length === 1) return first;
  return joined(pieces);
}

function sliceSparse(
  { data, index }: Packed<"sparse">,
  runs: readonly RowRun[],
  width: number,
): Packed<"sparse"> {
  const spans = runs.map(([from, to]) => ({
    from,
    to,
    start: lowerBound(index, from * width),
    end: lowerBound(index, to * width),
  }));
  const size = spans.reduce((sum, { start, end }) => sum + end - start, 0);
  const [kept, places] = [new Float32Array(size), new Int32Array(size)];
  let [at, row] = [0, 0];
  for (const { from, to, start, end } of spans) {
    kept.set(data.subarray(start, end), at);
    const shift = (row - from) * width;
    for (let i = start; i < end; i++) places[at++] = i32(index, i) + shift;
    row += to - from;
  }
  return { packing: "sparse", data: kept, index: places };
}
