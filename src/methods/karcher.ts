import { clampCosine, gram } from "./geometry.js";
import { weightedSum } from "./linear.js";
import { method, number } from "./types.js";

/**
 * The Karcher mean of unit vectors lies in their span, so the whole iteration runs on k numbers and the
 * Gram matrix: the tensors themselves are read once for the products and once to be added up.
 * @param products ⟨x_i, x_j⟩, [k, k]
 * @returns what each input is multiplied by
 */
export function karcherCoefficients(
  products: Float64Array,
  k: number,
  steps: number,
  tolerance: number,
): number[] {
  const norms = Array.from({ length: k }, (_, i) => Math.sqrt(products[i * k + i]!));
  const valid = norms.flatMap((norm, i) => (norm > tolerance ? [i] : []));
  if (k === 1) return [1];
  if (valid.length === 0) return norms.map(() => 0);
  const cosine = (i: number, j: number) =>
    products[valid[i]! * k + valid[j]!]! / norms[valid[i]!]! / norms[valid[j]!]!;
  const n = valid.length;
  const times = (a: readonly number[], i: number) => a.reduce((sum, x, j) => sum + x * cosine(i, j), 0);
  const length = (a: readonly number[]) =>
    Math.sqrt(
      Math.max(
        0,
        a.reduce((sum, x, i) => sum + x * times(a, i), 0),
      ),
    );
  const scaled = (a: readonly number[], s: number) => a.map((x) => x * s);

  let mean: number[] = Array.from({ length: n }, () => 1 / n);
  const size = length(mean);
  mean = size < tolerance ? mean.map((_, i) => (i === 0 ? 1 : 0)) : scaled(mean, 1 / size);
  for (let step = 0; step < steps; step++) {
    const tangent = mean.map(() => 0);
    for (let i = 0; i < n; i++) {
      const along = clampCosine(times(mean, i));
      const angle = Math.acos(along);
      if (angle < tolerance) continue;
      const share = angle / Math.sin(angle) / n;
      tangent[i]! += share;
      for (let j = 0; j < n; j++) tangent[j]! -= share * along * mean[j]!;
    }
    const far = length(tangent);
    if (far < tolerance) break;
    mean = mean.map((m, i) => Math.cos(far) * m + (Math.sin(far) * tangent[i]!) / far);
    const unit = length(mean);
    if (unit > tolerance) mean = scaled(mean, 1 / unit);
  }
  // The mean direction gets the mean norm, of all inputs.
  const norm = norms.reduce((sum, x) => sum + x / k, 0);
  const coefficients = norms.map(() => 0);
  valid.forEach((input, i) => (coefficients[input] = (norm * mean[i]!) / norms[input]!));
  return coefficients;
}

export const karcher = method({
  name: "karcher",
  about: "mean of the models on the sphere, with their mean norm (Karcher 1977)",
  works: "values",
  baseless: true,
  parameters: {
    maxIter: number(10, "iterations at most", 1),
    tol: number(1e-5, "a step shorter than this ends them", 0),
  },
  merge(tensor, { maxIter, tol }) {
    const coefficients = karcherCoefficients(gram(tensor), tensor.labels.length, maxIter, tol);
    return (part, out) => weightedSum(part, coefficients, out);
  },
});
