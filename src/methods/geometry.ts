import type { TensorReader } from "./types.js";

/** ⟨x_i, x_j⟩ of all inputs over a whole tensor, [k, k] in rows, summed in float64. */
export function gram(tensor: TensorReader): Float64Array {
  const k = tensor.labels.length;
  const sums = new Float64Array(k * k);
  for (const { inputs } of tensor.parts()) {
    for (let i = 0; i < k; i++) {
      for (let j = 0; j <= i; j++) sums[i * k + j]! += dot(inputs[i]!, inputs[j]!);
    }
  }
  for (let i = 0; i < k; i++) for (let j = 0; j < i; j++) sums[j * k + i] = sums[i * k + j]!;
  return sums;
}

export function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

export const clampCosine = (x: number): number => Math.min(1, Math.max(-1, x));
