import { at } from "../at.js";

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
