import { createRequire } from "node:module";
import type { EigenvalueDecomposition as Eigen } from "ml-matrix";
import type { Factors } from "./lowrank.js";

/** Loaded when it is first wanted. */
const eigen = (symmetric: number[][]): Eigen => {
  const { EigenvalueDecomposition } = createRequire(import.meta.url)(
    "ml-matrix",
  ) as typeof import("ml-matrix");
  return new EigenvalueDecomposition(symmetric, { assumeSymmetric: true });
};

/** x M for a matrix M [rows, width], column by column of the result: [n] vectors of `rows` → [n] of `width`. */
function times(
  vectors: readonly Float64Array[],
  m: Float32Array,
  rows: number,
  width: number,
): Float64Array[] {
  const out = vectors.map(() => new Float64Array(width));
  for (let r = 0; r < rows; r++) {
    const line = m.subarray(r * width, (r + 1) * width);
    for (const [v, vector] of vectors.entries()) {
      const factor = vector[r]!;
      const target = out[v]!;
      for (let c = 0; c < width; c++) target[c] = target[c]! + factor * line[c]!;
    }
  }
  return out;
}

/** M x: [n] vectors of `width` → [n] of `rows`. */
function applied(
  vectors: readonly Float64Array[],
  m: Float32Array,
  rows: number,
  width: number,
): Float64Array[] {
  const out = vectors.map(() => new Float64Array(rows));
  for (let r = 0; r < rows; r++) {
    const line = m.subarray(r * width, (r + 1) * width);
    for (const [v, vector] of vectors.entries()) {
      let sum = 0;
      for (let c = 0; c < width; c++) sum += vector[c]! * line[c]!;
      out[v]![r] = sum;
    }
  }
  return out;
}

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((sum, x, i) => sum + x * b[i]!, 0);

/** Gram–Schmidt, twice over; what depends on those before it is dropped. */
function orthonormal(vectors: readonly Float64Array[]): Float64Array[] {
  const out: Float64Array[] = [];
  for (const vector of vectors) {
    const before = Math.sqrt(dot(vector, vector));
    for (let pass = 0; pass < 2; pass++) {
      for (const q of out) {
        const along = dot(q, vector);
        for (let i = 0; i < vector.length; i++) vector[i] = vector[i]! - along * q[i]!;
      }
    }
    const norm = Math.sqrt(dot(vector, vector));
    if (norm > 1e-10 * before && norm > 0) out.push(vector.map((x) => x / norm));
  }
  return out;
}

/**
 * The best approximation of a matrix by a product of rank at most `rank`: randomised subspace iteration
 * (Halko et al. 2011), eight directions more than wanted and three iterations, in float64. Held: the
 * directions.
 * @param random draws from (−1, 1), seeded by the caller
 * @returns the factors, and ‖m − left · right‖ with ‖m‖
 */
export function factorise(
  m: Float32Array,
  rows: number,
  width: number,
  rank: number,
  random: () => number,
): { factors: Factors; error: number; norm: number } {
  const most = Math.min(rank + 8, rows, width);
  let right = orthonormal(Array.from({ length: most }, () => Float64Array.from({ length: width }, random)));
  let left: Float64Array[] = [];
  for (let pass = 0; pass < 3; pass++) {
    left = orthonormal(applied(right, m, rows, width));
    right = pass < 2 ? orthonormal(times(left, m, rows, width)) : times(left, m, rows, width);
  }
  const [outLeft, outRight] = [new Float32Array(rows * rank), new Float32Array(rank * width)];
  if (left.length) {
    const { realEigenvalues, eigenvectorMatrix } = eigen(right.map((a) => right.map((b) => dot(a, b))));
    const order = realEigenvalues
      .map((_, i) => i)
      .sort((a, b) => realEigenvalues[b]! - realEigenvalues[a]!)
      .slice(0, rank);
    for (const [k, column] of order.entries()) {
      for (const [q, vector] of left.entries()) {
        const weight = eigenvectorMatrix.get(q, column);
        for (let r = 0; r < rows; r++) outLeft[r * rank + k] = outLeft[r * rank + k]! + weight * vector[r]!;
        const line = right[q]!;
        for (let c = 0; c < width; c++)
          outRight[k * width + c] = outRight[k * width + c]! + weight * line[c]!;
      }
    }
  }
  let [error, norm] = [0, 0];
  const sums = new Float64Array(width);
  for (let r = 0; r < rows; r++) {
    sums.fill(0);
    for (let k = 0; k < rank; k++) {
      const factor = outLeft[r * rank + k]!;
      for (let c = 0; c < width; c++) sums[c] = sums[c]! + factor * outRight[k * width + c]!;
    }
    for (let c = 0; c < width; c++) {
      const x = m[r * width + c]!;
      norm += x * x;
      error += (x - sums[c]!) ** 2;
    }
  }
  return {
    factors: { left: outLeft, right: outRight, rank, scale: 1 },
    error: Math.sqrt(error),
    norm: Math.sqrt(norm),
  };
}
