import { fromFloat32 } from "../tensor/dtype.js";
import { joined } from "../tensor/joined.js";

/**
 * How a task vector is kept: 4, 2 or 1 bytes an entry (int8 with a scale a row), or 8 bytes for each
 * entry that is left after trimming.
 */
export const packings = ["f32", "bf16", "int8", "sparse"] as const;
export type Packing = (typeof packings)[number];

/** Bytes an entry of a task vector takes. `density`: the part of the entries that a sparse one keeps. */
export const bytesPerEntry = (packing: Packing, density: number): number =>
  ({ f32: 4, bf16: 2, int8: 1, sparse: 8 * density })[packing];

/** Entries in one 32-bit word. */
const perWord = { f32: 1, bf16: 2, int8: 4 };

/** One expert's task vector of some rows, packed, in host memory. */
export interface PackedRows {
  /** [rows, words] of float32, or of int32 words that hold two bfloat16 or four int8; sparse: the kept numbers. */
  readonly data: Float32Array | Int32Array;
  /** [rows], what an int8 of a row is multiplied by. */
  readonly scales?: Float32Array | undefined;
  /** Sparse: where each kept number stands in rows × width, rising. */
  readonly index?: Int32Array | undefined;
}

/**
 * Packs rows of a task vector. bfloat16 rounds to nearest even; int8 rounds x · 127 / max|row| and
 * keeps max|row| / 127 as the row's scale, so its error is at most half of that; sparse keeps what is
 * not smaller than `threshold` and not 0.
 */
export function packRows(
  values: Float32Array,
  rows: number,
  width: number,
  packing: Packing,
  threshold = 0,
): PackedRows {
  if (packing === "f32") return { data: values };
  if (packing === "sparse") {
    let kept = 0;
    const keep = (x: number) => x !== 0 && Math.abs(x) >= threshold;
    for (const x of values) if (keep(x)) kept++;
    const [data, index] = [new Float32Array(kept), new Int32Array(kept)];
    let at = 0;
    for (let i = 0; i < values.length; i++) {
      if (!keep(values[i]!)) continue;
      data[at] = values[i]!;
      index[at++] = i;
    }
    return { data, index };
  }
  const words = Math.ceil(width / perWord[packing]);
  const data = new Int32Array(rows * words);
  const scales = new Float32Array(packing === "int8" ? rows : 0);
  for (let r = 0; r < rows; r++) {
    const row = values.subarray(r * width, (r + 1) * width);
    if (packing === "bf16") {
      new Uint8Array(data.buffer).set(fromFloat32(row, "BF16"), 4 * r * words);
      continue;
    }
    let largest = 0;
    for (let i = 0; i < width; i++) {
      const size = Math.abs(row[i]!);
      if (size > largest) largest = size;
    }
    const scale = Math.fround(largest / 127);
    scales[r] = scale;
    const bytes = new Int8Array(data.buffer, 4 * r * words, width);
    if (scale > 0)
      for (let i = 0; i < width; i++) bytes[i] = Math.max(-127, Math.min(127, Math.round(row[i]! / scale)));
  }
  return packing === "int8" ? { data, scales } : { data };
}

/** Packed rows as float32 again. */
export function unpackRows(
  { data, scales, index }: PackedRows,
  rows: number,
  width: number,
  packing: Packing,
): Float32Array {
  if (packing === "f32") return data as Float32Array;
  const out = new Float32Array(rows * width);
  if (packing === "sparse") {
    index!.forEach((place, i) => (out[place] = data[i]!));
    return out;
  }
  const words = Math.ceil(width / perWord[packing]);
  const bits = new Uint32Array(out.buffer);
  for (let r = 0; r < rows; r++) {
    if (packing === "bf16") {
      const halves = new Uint16Array(data.buffer, data.byteOffset + 4 * r * words, width);
      for (let i = 0; i < width; i++) bits[r * width + i] = halves[i]! << 16;
    } else {
      const bytes = new Int8Array(data.buffer, data.byteOffset + 4 * r * words, width);
      for (let i = 0; i < width; i++) out[r * width + i] = bytes[i]! * scales![r]!;
    }
  }
  return out;
}

/** Where a rising array first reaches `value`. */
function lowerBound(sorted: Int32Array, value: number): number {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Runs of rows out of packed ones. What lies in one piece is a view, not a copy. */
export function sliceRows(
  packed: PackedRows,
  runs: readonly (readonly [number, number])[],
  rows: number,
  width: number,
): PackedRows {
  const [only] = runs;
  if (runs.length === 1 && only![0] === 0 && only![1] === rows) return packed;
  if (packed.index) {
    const { index } = packed;
    const spans = runs.map(
      ([from, to]) => [lowerBound(index, from * width), lowerBound(index, to * width)] as const,
    );
    const size = spans.reduce((sum, [a, b]) => sum + b - a, 0);
    const [data, places] = [new Float32Array(size), new Int32Array(size)];
    let [at, row] = [0, 0];
    for (const [s, [a, b]] of spans.entries()) {
      data.set((packed.data as Float32Array).subarray(a, b), at);
      const shift = (row - runs[s]![0]) * width;
      for (let i = a; i < b; i++) places[at++] = index[i]! + shift;
      row += runs[s]![1] - runs[s]![0];
    }
    return { data, index: places };
  }
  const pick = <T extends Float32Array | Int32Array>(all: T, each: number): T => {
    const pieces = runs.map(([from, to]) => all.subarray(from * each, to * each) as T);
    return pieces.length === 1 ? pieces[0]! : joined(pieces);
  };
  return {
    data: pick(packed.data, packed.data.length / rows),
    scales: packed.scales && pick(packed.scales, 1),
  };
}
