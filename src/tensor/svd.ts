import { createRequire } from "node:module";
import { f64 } from "../at.js";

/** M = Σ s_i u_i v_iᵀ, the largest s first; what is nothing beside the first is left out. */
export interface Singular {
  readonly values: readonly number[];
  /** [rows, count] in rows. */
  readonly left: Float64Array;
  /** [count, width] in rows. */
  readonly right: Float64Array;
}

/** Values this small beside the largest are rounding: their directions are any. */
const smallest = 1e-7;

/** Singular values and vectors of a matrix in rows (ml-matrix: Golub and Reinsch). Holds five times the matrix. */
export function singular(matrix: Float64Array, rows: number, width: number): Singular {
  const { Matrix, SingularValueDecomposition } = createRequire(import.meta.url)(
    "ml-matrix",
  ) as typeof import("ml-matrix");
  const lines = Array.from({ length: rows }, (_, r) => matrix.subarray(r * width, (r + 1) * width));
  const found = new SingularValueDecomposition(new Matrix(lines), { autoTranspose: true });
  const { diagonal, leftSingularVectors: u, rightSingularVectors: v } = found;
  const least = smallest * (diagonal[0] ?? 0);
  const values = diagonal.filter((value) => value > least);
  const count = values.length;
  return {
    values,
    left: Float64Array.from({ length: rows * count }, (_, i) => u.get(Math.floor(i / count), i % count)),
    right: Float64Array.from({ length: count * width }, (_, i) => v.get(i % width, Math.floor(i / width))),
  };
}

/** A B for A of [rows, inner] and B of [inner, width], in rows. */
export function product(
  a: Float64Array,
  b: Float64Array,
  { rows, inner, width }: { readonly rows: number; readonly inner: number; readonly width: number },
): Float64Array {
  const out = new Float64Array(rows * width);
  for (let r = 0; r < rows; r++) {
    const target = out.subarray(r * width, (r + 1) * width);
    for (let i = 0; i < inner; i++) {
      const factor = f64(a, r * inner + i);
      const line = b.subarray(i * width, (i + 1) * width);
      for (let c = 0; c < width; c++) target[c] = target[c]! + factor * line[c]!;
    }
  }
  return out;
}

/** The matrix with orthonormal columns (or rows) that is nearest to one: U Vᵀ of its singular vectors. */
export function nearestOrthonormal(matrix: Float64Array, rows: number, width: number): Float64Array {
  const { values, left, right } = singular(matrix, rows, width);
  return product(left, right, { rows, inner: values.length, width });
}
