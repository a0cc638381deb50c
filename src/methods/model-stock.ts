import { clampCosine, dot, gram } from "./geometry.js";
import { weightedSum } from "./linear.js";
import { flag, method } from "./types.js";

/**
 * How far to go from the base to the mean: k cos / (1 + (k − 1) cos), with the mean cosine of every two
 * task vectors.
 */
export function interpolation(products: Float64Array, k: number): number {
  let sum = 0;
  for (let i = 0; i < k; i++) {
    for (let j = i + 1; j < k; j++) {
      sum += clampCosine(
        products[i * k + j]! /
          Math.max(1e-6, Math.sqrt(products[i * k + i]!) * Math.sqrt(products[j * k + j]!)),
      );
    }
  }
  const cosine = sum / ((k * (k - 1)) / 2);
  const denominator = 1 + (k - 1) * cosine;
  // Opposed task vectors meet at the base: there is nowhere to go.
  return Math.abs(denominator) < 1e-6 ? 0 : (k * cosine) / denominator;
}

export const modelStock = method({
  name: "model-stock",
  about: "as far from the base to the mean as the angles between the models say (Jang et al. 2024)",
  works: "deltas",
  inputs: [2, Infinity],
  parameters: { filterWise: flag(false, "one angle for each row, not for a tensor") },
  merge(tensor, { filterWise }) {
    const {
      width,
      labels: { length: k },
    } = tensor;
    const equal = (t: number) => Array.from({ length: k }, () => t / k);
    if (!filterWise) {
      const coefficients = equal(interpolation(gram(tensor), k));
      return (part, out) => weightedSum(part, coefficients, out, part.base);
    }
    return ({ base, inputs, start }, out) => {
      for (let from = 0; from < out.length; from += width) {
        const rows = inputs.map((x) => x.subarray(from, from + width));
        const products = Float64Array.from({ length: k * k }, (_, at) =>
          dot(rows[Math.floor(at / k)]!, rows[at % k]!),
        );
        weightedSum(
          { start, base, inputs: rows },
          equal(interpolation(products, k)),
          out.subarray(from, from + width),
          base.subarray(from, from + width),
        );
      }
    };
  },
});
