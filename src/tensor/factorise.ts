import { createRequire } from "node:module";
import type { EigenvalueDecomposition as Eigen } from "ml-matrix";
import * as access from "../at.js";
import { addMultiple, type Factors } from "./lowrank.js";

// Names of this module's own: through an import, which V8 does not see through in a loop, access takes a third longer.
const { at, f32, f64 } = access;

/** A matrix in host memory, row after row. */
export interface HostMatrix {
  readonly values: Float32Array;
  readonly rows: number;
  readonly width: number;
}

/** Loaded when it is first wanted. `require` knows no types. */
const eigen = (symmetric: number[][]): Eigen => {
  const { EigenvalueDecomposition } = createRequire(import.meta.url)(
    "ml-matrix",
  ) as typeof import("ml-matrix");
  return new EigenvalueDecomposition(symmetric, { assumeSymmetric: true });
};

/** vᵀ M for some vectors v of as many entries as M has rows. */
function timesMatrix(vectors: readonly Float64Array[], { values, rows, width }: HostMatrix): Float64Array[] {
  const all = vectors.map((vector) => ({ vector, out: new Float64Array(width) }));
  for (let r = 0; r < rows; r++) {
    const line = values.subarray(r * width, (r + 1) * width);
    for (const { vector, out } of all) addMultiple(out, f64(vector, r), line);
  }
  return all.map(({ out }) => out);
}

/** M v for some vectors v of as many entries as M has columns. */
function matrixTimes({ values, rows, width }: HostMatrix, vectors: readonly Float64Array[]): Float64Array[] {
  const all = vectors.map((vector) => ({ vector, out: new Float64Array(rows) }));
  for (let r = 0; r < rows; r++) {
    const line = values.subarray(r * width, (r + 1) * width);
    for (const { vector, out } of all) {
      let sum = 0;
      for (let c = 0; c < width; c++) sum += f64(vector, c) * f32(line, c);
      out[r] = sum;
    }
  }
  return all.map(({ out }) => out);
}

function innerProduct(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += f64(a, i) * f64(b, i);
  return sum;
}

/** Gram–Schmidt, twice over; what depends on those before it is dropped. */
function orthonormal(vectors: readonly Float64Array[]): Float64Array[] {
  const out: Float64Array[] = [];
  for (const vector of vectors) {
    const before = Math.sqrt(innerProduct(vector, vector));
    for (let pass = 0; pass < 2; pass++) {
      for (const q of out) {
        const along = innerProduct(q, vector);
        for (let i = 0; i < vector.length; i++) vector[i] = f64(vector, i) - along * f64(q, i);
      }
    }
    const norm = Math.sqrt(innerProduct(vector, vector));
    if (norm > 1e-10 * before && norm > 0) out.push(vector.map((x) => x / norm));
  }
  return out;
}

/**
 * left · right for directions of both, turned so that the largest of their products come first, cut to a rank.
 * @param left orthonormal, as many as right
 */
function leadingFactors(
  left: readonly Float64Array[],
  right: readonly Float64Array[],
  rank: number,
): Factors {
  const [rows, width] = [at(left, 0).length, at(right, 0).length];
  const factors = { left: new Float32Array(rows * rank), right: new Float32Array(rank * width) };
  const { realEigenvalues, eigenvectorMatrix } = eigen(
    right.map((a) => right.map((b) => innerProduct(a, b))),
  );
  const order = realEigenvalues
    .map((value, column) => ({ value, column }))
    .sort((a, b) => b.value - a.value)
    .slice(0, rank);
  for (const [k, { column }] of order.entries()) {
    for (const [q, vector] of left.entries()) {
      const weight = eigenvectorMatrix.get(q, column);
      for (let r = 0; r < rows; r++) {
        const entry = r * rank + k;
        factors.left[entry] = f32(factors.left, entry) + weight * f64(vector, r);
      }
      const line = at(right, q);
      for (let c = 0; c < width; c++) {
        const entry = k * width + c;
        factors.right[entry] = f32(factors.right, entry) + weight * f64(line, c);
      }
    }
  }
  return { ...factors, rank, scale: 1 };
}

/** ‖m − left · right‖ and ‖m‖. */
function distance({ values, rows, width }: HostMatrix, { left, right, rank }: Factors) {
  let [error, norm] = [0, 0];
  const sums = new Float64Array(width);
  for (let r = 0; r < rows; r++) {
    sums.fill(0);
    for (let k = 0; k < rank; k++)
      addMultiple(sums, f32(left, r * rank + k), right.subarray(k * width, (k + 1) * width));
    for (let c = 0; c < width; c++) {
      const x = f32(values, r * width + c);
      norm += x * x;
      error += (x - f64(sums, c)) ** 2;
    }
  }
  return { error: Math.sqrt(error), norm: Math.sqrt(norm) };
}

/**
 * The best approximation of a matrix by a product of rank at most `rank`: randomised subspace iteration
 * (Halko et al. 2011), eight directions more than wanted and three iterations, in float64. Held: the
 * directions.
 * @param random draws from (−1, 1), seeded by the caller
 * @returns the factors, and ‖m − left · right‖ with ‖m‖
 */
export function factorise(
  m: HostMatrix,
  rank: number,
  random: () => number,
): { factors: Factors; error: number; norm: number } {
  const { rows, width } = m;
  const most = Math.min(rank + 8, rows, width);
  let right = orthonormal(Array.from({ length: most }, () => Float64Array.from({ length: width }, random)));
  for (let pass = 0; pass < 2; pass++)
    right = orthonormal(timesMatrix(orthonormal(matrixTimes(m, right)), m));
  const left = orthonormal(matrixTimes(m, right));
  right = timesMatrix(left, m);
  // Of nothing but zeros there are no directions.
  const nothing = {
    left: new Float32Array(rows * rank),
    right: new Float32Array(rank * width),
    rank,
    scale: 1,
  };
  const factors = left.length === 0 ? nothing : leadingFactors(left, right, rank);
  return { factors, ...distance(m, factors) };
}
