/** What methods share that take a layer's matrix as a whole. */
import { f32, f64 } from "../at.js";
import { weightedSum } from "./arrays.js";
import { zip } from "./inputs.js";
import { equalShares } from "./linear.js";
import type { MergePart, TensorReader } from "./types.js";

/** Tables have many more rows than columns: their rows are looked up, nothing is multiplied by them. */
const mostRows = 16;

/** Whether a tensor is a layer's matrix: vectors are none, nor tables. */
export const isLayer = ({ rows, width, axes = 2 }: TensorReader): boolean =>
  axes === 2 && rows > 1 && width > 1 && rows <= mostRows * width;

/** Every input's entries, or its task vector: whole. */
export function wholeInputs(tensor: TensorReader): Float64Array[] {
  const all = tensor.labels.map(() => new Float64Array(tensor.rows * tensor.width));
  for (const { start, inputs } of tensor.parts())
    for (const [x, whole] of zip(inputs, all)) whole.set(x, start);
  return all;
}

/** Σ of matrices of one size. */
export function sumOf(matrices: readonly Float64Array[]): Float64Array {
  const sum = new Float64Array(matrices[0]?.length ?? 0);
  for (const matrix of matrices) for (let i = 0; i < sum.length; i++) sum[i] = f64(sum, i) + f64(matrix, i);
  return sum;
}

/**
 * base + λ · what a function makes of a layer's task vectors; what is no layer's matrix gets λ times the mean of them.
 */
export function mergeLayers(
  tensor: TensorReader,
  { lambda, others = lambda }: { readonly lambda: number; readonly others?: number },
  ofDeltas: (deltas: readonly Float64Array[]) => Float64Array,
): MergePart {
  if (!isLayer(tensor)) {
    const shares = equalShares(tensor.labels).map((share) => others * share);
    return ({ base, inputs }, out) => weightedSum(inputs, shares, out, base);
  }
  const merged = ofDeltas(wholeInputs(tensor));
  return ({ start, base }, out) => {
    for (let i = 0; i < out.length; i++) out[i] = f32(base, i) + lambda * f64(merged, start + i);
  };
}
