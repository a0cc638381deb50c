import { at, f64 } from "../at.js";
import { weightedSum } from "./arrays.js";
import { clampCosine, gram } from "./geometry.js";
import { zip } from "./inputs.js";
import { method, parameter } from "./types.js";

/** When the iteration ends. */
interface Stopping {
  readonly maxIter: number;
  readonly tol: number;
}

const inner = (a: readonly number[], b: readonly number[]): number =>
  zip(a, b).reduce((sum, [x, y]) => sum + x * y, 0);
const scaledBy = (a: readonly number[], factor: number): number[] => a.map((x) => x * factor);

/**
 * The mean direction of unit vectors, by steps along the sphere.
 * @param cosines between every two of them, row after row
 * @returns what each of them is multiplied by
 */
function meanDirection(cosines: readonly (readonly number[])[], { maxIter, tol }: Stopping): number[] {
  const n = cosines.length;
  const along = (a: readonly number[]): number[] => cosines.map((row) => inner(a, row));
  const length = (a: readonly number[]) => Math.sqrt(Math.max(0, inner(a, along(a))));

  let mean = cosines.map(() => 1 / n);
  const size = length(mean);
  // Opposed vectors have no mean to begin at: the first is one.
  if (size < tol) mean = mean.map((_, i) => Number(i === 0));
  else mean = scaledBy(mean, 1 / size);
  for (let step = 0; step < maxIter; step++) {
    let tangent = mean.map(() => 0);
    for (const [i, cosine] of along(mean).map(clampCosine).entries()) {
      const angle = Math.acos(cosine);
      if (angle < tol) continue;
      const share = angle / Math.sin(angle) / n;
      tangent[i] = at(tangent, i) + share;
      tangent = zip(tangent, mean).map(([t, m]) => t - share * cosine * m);
    }
    const far = length(tangent);
    if (far < tol) break;
    mean = zip(mean, tangent).map(([m, t]) => Math.cos(far) * m + (Math.sin(far) * t) / far);
    const unit = length(mean);
    if (unit > tol) mean = scaledBy(mean, 1 / unit);
  }
  return mean;
}

/**
 * The Karcher mean of unit vectors lies in their span, so the whole iteration runs on k numbers and the
 * Gram matrix: the tensors themselves are read once for the products and once to be added up.
 * @param products ⟨x_i, x_j⟩, [k, k]
 * @returns what each input is multiplied by
 */
function karcherCoefficients(products: Float64Array, k: number, stopping: Stopping): number[] {
  if (k === 1) return [1];
  const norms = Array.from({ length: k }, (_, i) => Math.sqrt(f64(products, i * k + i)));
  const directions = [...norms.entries()].filter(([, norm]) => norm > stopping.tol);
  if (directions.length === 0) return norms.map(() => 0);
  const cosines = directions.map(([i, a]) => directions.map(([j, b]) => f64(products, i * k + j) / a / b));
  // The mean direction gets the mean norm, of all inputs.
  const norm = norms.reduce((sum, x) => sum + x / k, 0);
  const coefficients = norms.map(() => 0);
  for (const [[input, own], m] of zip(directions, meanDirection(cosines, stopping)))
    coefficients[input] = (norm * m) / own;
  return coefficients;
}

export const karcherMethod = method({
  name: "karcher",
  about: "mean of the models on the sphere, with their mean norm (Karcher 1977)",
  works: "values",
  baseless: true,
  parameters: {
    maxIter: parameter.number(10, "iterations at most", 1),
    tol: parameter.number(1e-5, "a step shorter than this ends them", 0),
  },
  merge(tensor, stopping) {
    const coefficients = karcherCoefficients(gram(tensor), tensor.labels.length, stopping);
    return ({ inputs }, out) => weightedSum(inputs, coefficients, out);
  },
});
