import { f64 } from "../at.js";
import { weightedSum } from "./arrays.js";
import { clampCosine, gram, products } from "./geometry.js";
import { method, parameter } from "./types.js";

/**
 * How far to go from the base to the mean: k cos / (1 + (k − 1) cos), with the mean cosine of every two
 * task vectors.
 * @param squares their products, [k, k]
 */
function interpolation(squares: Float64Array, k: number): number {
  const norm = (i: number) => Math.sqrt(f64(squares, i * k + i));
  let sum = 0;
  for (let i = 0; i < k; i++) {
    for (let j = i + 1; j < k; j++)
      sum += clampCosine(f64(squares, i * k + j) / Math.max(1e-6, norm(i) * norm(j)));
  }
  const cosine = sum / ((k * (k - 1)) / 2);
  const denominator = 1 + (k - 1) * cosine;
  // Opposed task vectors meet at the base: there is nowhere to go.
  if (Math.abs(denominator) < 1e-6) return 0;
  return (k * cosine) / denominator;
}

export const modelStockMethod = method({
  name: "model-stock",
  about: "as far from the base to the mean as the angles between the models say (Jang et al. 2024)",
  works: "deltas",
  inputs: [2, Infinity],
  parameters: { filterWise: parameter.flag(false, "one angle for each row, not for a tensor") },
  merge(tensor, { filterWise }) {
    const { width, labels } = tensor;
    const k = labels.length;
    const coefficientsOf = (squares: Float64Array): number[] => {
      const t = interpolation(squares, k);
      return labels.map(() => t / k);
    };
    if (!filterWise) {
      const coefficients = coefficientsOf(gram(tensor));
      return ({ base, inputs }, out) => weightedSum(inputs, coefficients, out, base);
    }
    return ({ base, inputs }, out) => {
      for (let from = 0; from < out.length; from += width) {
        const rowOf = (x: Float32Array) => x.subarray(from, from + width);
        const rows = inputs.map(rowOf);
        weightedSum(rows, coefficientsOf(products(rows)), rowOf(out), rowOf(base));
      }
    };
  },
});
