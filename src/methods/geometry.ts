import { f64 } from "../at.js";
import { dot } from "../tensor/dtype.js";
import { zip } from "./inputs.js";
import type { TensorReader } from "./types.js";

/** ⟨x_i, x_j⟩ of all vectors, [k, k] in rows, summed in float64. */
export const products = (vectors: readonly Float32Array[]): Float64Array =>
  Float64Array.from(vectors.flatMap((a) => vectors.map((b) => dot(a, b))));

/** The same of all inputs over a whole tensor. */
export function gram(tensor: TensorReader): Float64Array {
  const k = tensor.labels.length;
  const sums = new Float64Array(k * k);
  for (const { inputs } of tensor.parts()) {
    for (const [i, a] of inputs.entries()) {
      for (const [j, b] of inputs.slice(0, i + 1).entries())
        sums[i * k + j] = f64(sums, i * k + j) + dot(a, b);
    }
  }
  for (let i = 0; i < k; i++) for (let j = 0; j < i; j++) sums[j * k + i] = f64(sums, i * k + j);
  return sums;
}

/** Squares and product of two inputs a and b. */
export interface PairProducts {
  readonly aa: number;
  readonly ab: number;
  readonly bb: number;
}

/** The squares and the product of a tensor's two inputs. */
export function pairProducts(tensor: TensorReader): PairProducts {
  const all = gram(tensor);
  return { aa: f64(all, 0), ab: f64(all, 1), bb: f64(all, 3) };
}

export const clampCosine = (x: number): number => Math.min(1, Math.max(-1, x));

/** Each sum with the square of its vector added, in float64. */
export const addSquares = (sums: readonly number[], vectors: readonly Float32Array[]): number[] =>
  zip(sums, vectors).map(([sum, x]) => sum + dot(x, x));
