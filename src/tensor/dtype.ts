import { at, i32 } from "../at.js";
import { decodeHalves, encodeHalves } from "../halves.js";

/** The element types a safetensors file can hold, with their size in bytes. */
export const dtypeBytes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  // Packed: two and four thirds of them in a byte.
  F4: 0.5,
  F6_E2M3: 0.75,
  F6_E3M2: 0.75,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  F8_E4M3FNUZ: 1,
  F8_E5M2FNUZ: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  I64: 8,
  U64: 8,
  F64: 8,
  C64: 8,
} as const;

export type DType = keyof typeof dtypeBytes;
/** The types that an output may be written in. */
export type FloatDType = "F32" | "F16" | "BF16";
/** The types that a weight may have to be merged: it is read as float32. */
export type StoredFloat = FloatDType | "F64";

/** A tensor in host memory as its file holds it: raw little-endian bytes. */
export interface HostTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export const isDType = (name: unknown): name is DType =>
  typeof name === "string" && Object.hasOwn(dtypeBytes, name);
export const isFloat = (dtype: DType): dtype is StoredFloat =>
  dtype === "F32" || dtype === "F16" || dtype === "BF16" || dtype === "F64";

/** The type that a weight of this type is written in, where none was chosen: what is merged was float32 on its way. */
export const writtenType = (dtype: DType): FloatDType =>
  dtype === "F16" || dtype === "BF16" ? dtype : "F32";

/** Number of elements; 1 for a scalar's empty shape. */
export const elements = (shape: readonly number[]): number =>
  shape.reduce((product, size) => product * size, 1);

/**
 * An aligned view where the bytes allow one, a copy where they do not. The buffer may be shared between threads, which
 * the types of Node's views leave open; views of either kind are made alike.
 */
function view<T>(
  bytes: Uint8Array,
  size: number,
  make: (buffer: ArrayBuffer, offset: number, length: number) => T,
): T {
  const isAligned = bytes.byteOffset % size === 0;
  const aligned = isAligned ? bytes : bytes.slice();
  return make(aligned.buffer as ArrayBuffer, aligned.byteOffset, aligned.byteLength / size);
}

/**
 * Decodes F32, F16, BF16 or F64 bytes to float32. An F32 input may be returned as a view of the same
 * memory; every other input is a new array.
 */
export function toFloat32(tensor: HostTensor): Float32Array<ArrayBuffer> {
  const { dtype, bytes } = tensor;
  if (dtype === "F32") return view(bytes, 4, (b, o, n) => new Float32Array(b, o, n));
  if (dtype === "F64") return Float32Array.from(view(bytes, 8, (b, o, n) => new Float64Array(b, o, n)));
  if (dtype !== "F16" && dtype !== "BF16") throw new Error(`${dtype} is not a weight type`);
  const source = view(bytes, 2, (b, o, n) => new Uint16Array(b, o, n));
  const out = new Float32Array(source.length);
  decodeHalves(source, dtype, out);
  return out;
}

/** Encodes float32 values, rounding to nearest even. */
export function fromFloat32(values: Float32Array, dtype: FloatDType): Uint8Array {
  if (dtype === "F32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const out = new Uint16Array(values.length);
  encodeHalves(values, dtype, out);
  return new Uint8Array(out.buffer);
}

/** The type that a user asked for; undefined for auto, which leaves every tensor in its own. */
export function chosenDType(dtype: FloatDType | "auto"): FloatDType | undefined {
  if (dtype !== "auto") return dtype;
  return undefined;
}

type Numbers = Uint8Array | Float32Array | Int32Array;

/** Arrays of one type, one after the other. @throws RangeError where there are none: their type is not known then */
export function joined<T extends Numbers>(pieces: readonly T[]): T {
  // TypeScript has no type for "the class of this object".
  const ofLength = at(pieces, 0).constructor as new (size: number) => T;
  const out = new ofLength(pieces.reduce((sum, { length }) => sum + length, 0));
  let start = 0;
  for (const piece of pieces) {
    out.set(piece, start);
    start += piece.length;
  }
  return out;
}

/** Σ a_i b_i, summed in float64 one after the other. */
export function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** Softmax of one row on the host, in float64. */
export function softmax(row: ArrayLike<number>): number[] {
  const values = Array.from(row);
  const top = Math.max(...values);
  const exponentials = values.map((value) => Math.exp(value - top));
  const total = exponentials.reduce((sum, value) => sum + value, 0);
  return exponentials.map((value) => value / total);
}

/** A tensor seen as rows of its last axis, or some of its rows; a vector is one row. */
export interface RowShape {
  readonly rows: number;
  readonly width: number;
}

/** @param size entries of the tensor */
export function rowShape(shape: readonly number[], size: number): RowShape {
  const width = shape.length > 1 ? at(shape, -1) : size;
  return { rows: width === 0 ? 0 : size / width, width };
}

/** Rows that lie side by side in one table. */
export interface RowsRun {
  /** The first of them, as it is wanted. */
  readonly row: number;
  readonly count: number;
  /** Which table they are in, and at which of its rows they begin. */
  readonly table: number;
  readonly from: number;
}

/**
 * Rows `from` to before `to` of a table that is put together from others.
 * @param map which row each is of those of all tables, laid end to end
 */
export function runsOfRows(
  { map, tables }: { readonly map: Int32Array; readonly tables: readonly { readonly rows: number }[] },
  from: number,
  to: number,
): RowsRun[] {
  const runs: { row: number; count: number; table: number; from: number }[] = [];
  for (let row = from; row < to; row++) {
    let source = i32(map, row);
    let table = 0;
    while (source >= at(tables, table).rows) source -= at(tables, table++).rows;
    const last = runs.at(-1);
    if (last?.table === table && source === last.from + last.count) last.count++;
    else runs.push({ row, count: 1, table, from: source });
  }
  return runs;
}
