/** Methods that merge the singular vectors of task vectors: a linear layer's matrix as a whole. */
import { at, f32, f64 } from "../at.js";
import { leading, nearestOrthonormal, product, singular } from "../tensor/svd.js";
import { weightedSum } from "./arrays.js";
import { lambdaParameter } from "./consensus.js";
import { zip } from "./inputs.js";
import { method, type MergePart, type TensorReader } from "./types.js";

/** Whether a tensor is a layer's matrix: vectors are none, nor tables of many rows, whose rows are looked up. */
const mostRows = 16;
const isLayer = ({ rows, width, axes = 2 }: TensorReader): boolean =>
  axes === 2 && rows > 1 && width > 1 && rows <= mostRows * width;

/** Every input's task vector, whole. */
function wholeDeltas(tensor: TensorReader): Float64Array[] {
  const all = tensor.labels.map(() => new Float64Array(tensor.rows * tensor.width));
  for (const { start, inputs } of tensor.parts())
    for (const [x, whole] of zip(inputs, all)) whole.set(x, start);
  return all;
}

/** Merges layers by a function of their task vectors, everything else by the mean. */
function merging(
  tensor: TensorReader,
  lambda: number,
  ofDeltas: (deltas: readonly Float64Array[]) => Float64Array,
): MergePart {
  if (!isLayer(tensor)) {
    const shares = tensor.labels.map(() => lambda / tensor.labels.length);
    return ({ base, inputs }, out) => weightedSum(inputs, shares, out, base);
  }
  const merged = ofDeltas(wholeDeltas(tensor));
  return ({ start, base }, out) => {
    for (let i = 0; i < out.length; i++) out[i] = f32(base, i) + lambda * f64(merged, start + i);
  };
}

const parameters = { lambda: lambdaParameter(1) };
const grid = { lambda: [0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.6, 1.8, 2] };
/** Equal singular values make a shorter sum. */
const widerGrid = { lambda: [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6] };

/** The sum of task vectors with all its singular values made equal: their mean. */
function isotropic(deltas: readonly Float64Array[], { rows, width }: TensorReader): Float64Array {
  const sum = new Float64Array(rows * width);
  for (const delta of deltas) for (let i = 0; i < sum.length; i++) sum[i] = f64(sum, i) + f64(delta, i);
  const { values, left, right } = singular(sum, rows, width);
  // The mean is over all directions, those that nothing moved in too.
  const mean = values.reduce((all, value) => all + value, 0) / Math.min(rows, width);
  const out = product(left, right, { rows, inner: values.length, width });
  for (let i = 0; i < out.length; i++) out[i] = mean * f64(out, i);
  return out;
}

export const isoCMethod = method({
  name: "iso-c",
  about: "the sum of task vectors with equal singular values (Marczak et al. 2025)",
  works: "deltas",
  scaled: true,
  grid: widerGrid,
  parameters,
  changesEqual: () => true,
  merge: (tensor, { lambda }) => merging(tensor, lambda, (deltas) => isotropic(deltas, tensor)),
});

/**
 * Each task's leading singular vectors, as many as its share of the layer's dimensions, made orthogonal to each other
 * (the nearest orthonormal matrices to all of them side by side), with their own singular values.
 */
function taskSingularVectors(deltas: readonly Float64Array[], { rows, width }: TensorReader): Float64Array {
  const share = Math.floor(Math.min(rows, width) / deltas.length);
  const kept = deltas.map((delta) => leading(delta, rows, width, share));
  const counts = kept.map(({ values }) => values.length);
  const inner = counts.reduce((sum, count) => sum + count, 0);
  if (inner === 0) return new Float64Array(rows * width);
  const [left, right] = [new Float64Array(rows * inner), new Float64Array(inner * width)];
  const values: number[] = [];
  for (const [task, one] of kept.entries()) {
    const [from, count, all] = [values.length, at(counts, task), one.values.length];
    for (let r = 0; r < rows; r++)
      for (let i = 0; i < count; i++) left[r * inner + from + i] = f64(one.left, r * all + i);
    right.set(one.right.subarray(0, count * width), from * width);
    values.push(...one.values.slice(0, count));
  }
  const [u, v] = [nearestOrthonormal(left, rows, inner), nearestOrthonormal(right, inner, width)];
  for (let r = 0; r < rows; r++)
    for (let i = 0; i < inner; i++) u[r * inner + i] = f64(u, r * inner + i) * at(values, i);
  return product(u, v, { rows, inner, width });
}

export const tsvMMethod = method({
  name: "tsv-m",
  about: "each task's leading singular vectors, made orthogonal to the others' (Gargiulo et al. 2025)",
  works: "deltas",
  scaled: true,
  grid,
  parameters,
  changesEqual: () => true,
  merge: (tensor, { lambda }) => merging(tensor, lambda, (deltas) => taskSingularVectors(deltas, tensor)),
});
