/** Methods that merge the singular vectors of task vectors. */
import { at, f32, f64 } from "../at.js";
import { leading, nearestOrthonormal, product, scaledRows, singular, type Singular } from "../tensor/svd.js";
import { weightedSum } from "./arrays.js";
import { lambdaParameter } from "./consensus.js";
import { isLayer, mergeLayers, sumOf, wholeInputs } from "./layers.js";
import { equalShares } from "./linear.js";
import { method, parameter, type EachPart, type TensorReader } from "./types.js";

type Size = Pick<TensorReader, "rows" | "width">;

const parameters = { lambda: lambdaParameter(1) };
const grid = { lambda: [0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.6, 1.8, 2] };
/** Equal singular values make a shorter sum. */
const widerGrid = { lambda: [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6] };

/** M = U diag(s) V, the parts that are kept. */
const restored = ({ values, left, right }: Singular, { rows, width }: Size): Float64Array =>
  product(left, scaledRows(right, values), { rows, inner: values.length, width });

/** The sum of task vectors with all its singular values made equal: their mean. */
function isotropic(deltas: readonly Float64Array[], { rows, width }: Size): Float64Array {
  const { values, left, right } = singular(sumOf(deltas), rows, width);
  // The mean is over all directions, those that nothing moved in too.
  const mean = values.reduce((all, value) => all + value, 0) / Math.min(rows, width);
  return restored({ values: values.map(() => mean), left, right }, { rows, width });
}

export const isoCMethod = method({
  name: "iso-c",
  about: "the sum of task vectors with equal singular values (Marczak et al. 2025)",
  works: "deltas",
  scaled: true,
  grid: widerGrid,
  parameters,
  changesEqual: () => true,
  merge: (tensor, { lambda }) => mergeLayers(tensor, { lambda }, (deltas) => isotropic(deltas, tensor)),
});

/** Singular vectors of several matrices in a row, with their values. */
function sideBySide(all: readonly Singular[], { rows, width }: Size): Singular {
  const values = all.flatMap((one) => one.values);
  const inner = values.length;
  const [left, right] = [new Float64Array(rows * inner), new Float64Array(inner * width)];
  let from = 0;
  for (const one of all) {
    const count = one.values.length;
    for (let r = 0; r < rows; r++) left.set(one.left.subarray(r * count, (r + 1) * count), r * inner + from);
    right.set(one.right, from * width);
    from += count;
  }
  return { values, left, right };
}

/** Their vectors made orthogonal to each other: the nearest orthonormal matrices to all of them. */
function madeOrthogonal({ values, left, right }: Singular, { rows, width }: Size): Singular {
  const inner = values.length;
  if (inner === 0) return { values, left, right };
  return {
    values,
    left: nearestOrthonormal(left, rows, inner),
    right: nearestOrthonormal(right, inner, width),
  };
}

/** Each task's leading singular vectors, as many as its share of the layer's dimensions. */
function shareOfEach(deltas: readonly Float64Array[], { rows, width }: Size): Singular[] {
  const share = Math.floor(Math.min(rows, width) / deltas.length);
  return deltas.map((delta) => leading(delta, rows, width, share));
}

/** Those of all tasks, made orthogonal to each other, with their own singular values. */
const taskSingularVectors = (deltas: readonly Float64Array[], size: Size): Float64Array =>
  restored(madeOrthogonal(sideBySide(shareOfEach(deltas, size), size), size), size);

/**
 * What each task has in {@link tsvMMethod}: its own singular vectors after they were made orthogonal to the others'; of
 * what is no layer's matrix, its share of the mean. Together they are that method's task vector.
 */
export function eachTasksPart(tensor: TensorReader, scale: number): EachPart {
  const shares = equalShares(tensor.labels).map((share) => scale * share);
  if (!isLayer(tensor))
    return ({ base, inputs }, outs) => {
      for (const [i, out] of outs.entries()) weightedSum([at(inputs, i)], [at(shares, i)], out, base);
    };
  const kept = shareOfEach(wholeInputs(tensor), tensor);
  const all = madeOrthogonal(sideBySide(kept, tensor), tensor);
  let from = 0;
  const parts = kept.map(({ values: { length } }) => {
    const [first, end] = [from, (from += length)];
    return restored({ ...all, values: all.values.map((x, i) => (i >= first && i < end ? x : 0)) }, tensor);
  });
  return ({ start, base }, outs) => {
    for (const [i, out] of outs.entries())
      for (let e = 0; e < out.length; e++) out[e] = f32(base, e) + scale * f64(at(parts, i), start + e);
  };
}

export const tsvMMethod = method({
  name: "tsv-m",
  about: "each task's leading singular vectors, made orthogonal to the others' (Gargiulo et al. 2025)",
  works: "deltas",
  scaled: true,
  grid,
  parameters,
  changesEqual: () => true,
  merge: (tensor, { lambda }) =>
    mergeLayers(tensor, { lambda }, (deltas) => taskSingularVectors(deltas, tensor)),
});

/** To the nearest whole number, halves to the even one (as Python). */
function rounded(x: number): number {
  const below = Math.floor(x);
  if (x - below === 0.5) return below + (below % 2);
  return Math.round(x);
}

/** M − U Uᵀ M. */
function without(matrix: Float64Array, left: Float64Array, { rows, width }: Size): Float64Array {
  const count = left.length / rows;
  const along = new Float64Array(count * width);
  for (let r = 0; r < rows; r++)
    for (let i = 0; i < count; i++) {
      const factor = f64(left, r * count + i);
      for (let c = 0; c < width; c++)
        along[i * width + c] = along[i * width + c]! + factor * matrix[r * width + c]!;
    }
  const part = product(left, along, { rows, inner: count, width });
  return matrix.map((x, i) => x - f64(part, i));
}

/**
 * The leading singular vectors of the sum, and what each task has beside them, all made orthogonal to each other, with
 * equal singular values: their mean. (The authors' `iso_cts`.)
 */
function commonAndTasks(deltas: readonly Float64Array[], size: Size, common: number): Float64Array {
  const { rows, width } = size;
  const least = Math.min(rows, width);
  const share = rounded((least - Math.floor(least * common)) / deltas.length);
  const shared = leading(sumOf(deltas), rows, width, Math.max(0, least - share * deltas.length));
  const own = deltas.map((delta) => leading(without(delta, shared.left, size), rows, width, share));
  const together = madeOrthogonal(sideBySide([...own, shared], size), size);
  const mean = together.values.reduce((all, value) => all + value, 0) / least;
  return restored({ ...together, values: together.values.map(() => mean) }, size);
}

export const isoCtsMethod = method({
  name: "iso-cts",
  about:
    "what tasks have in common and what each has alone, with equal singular values (Marczak et al. 2025)",
  works: "deltas",
  scaled: true,
  grid: widerGrid,
  parameters: {
    ...parameters,
    common: parameter.number(0.8, "part of a layer's dimensions that the sum's singular vectors take", 0, 1),
  },
  changesEqual: () => true,
  merge: (tensor, { lambda, common }) =>
    mergeLayers(tensor, { lambda }, (deltas) => commonAndTasks(deltas, tensor, common)),
});

/** The mean of the task vectors, and λ times what is left of each one's difference from it at a low rank. */
function aroundMean(
  deltas: readonly Float64Array[],
  size: Size,
  { lambda, rankRatio }: { readonly lambda: number; readonly rankRatio: number },
): Float64Array {
  const { rows, width } = size;
  const mean = sumOf(deltas).map((x) => x / deltas.length);
  // With all directions the differences add up to nothing.
  const most = Math.max(Math.ceil(rankRatio), Math.floor(rankRatio * Math.min(rows, width)));
  const parts = deltas.map((delta) => {
    const part = restored(
      leading(
        delta.map((x, i) => x - f64(mean, i)),
        rows,
        width,
        most,
      ),
      size,
    );
    return part.map((x) => lambda * x);
  });
  return sumOf([mean, ...parts]);
}

export const cartMethod = method({
  name: "cart",
  about: "the models' mean, and what each differs from it by at a low rank (Choi et al. 2024)",
  works: "deltas",
  grid: { lambda: [0.5, 1, 2, 3, 4, 5] },
  parameters: {
    lambda: parameter.number(1, "what the differences from the mean are multiplied by"),
    rankRatio: parameter.number(0.16, "part of a layer's dimensions that a difference keeps", 0, 1),
  },
  changesEqual: () => false,
  merge: (tensor, values) =>
    mergeLayers(tensor, { lambda: 1 }, (deltas) => aroundMean(deltas, tensor, values)),
});
