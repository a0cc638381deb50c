import { createRequire } from "node:module";
import type { Matrix } from "ml-matrix";
import { weightedSum } from "./linear.js";
import { method, number, type TensorReader } from "./types.js";

/** Loaded when it is first wanted: every thread of every merge imports this file. */
const algebra = () => createRequire(import.meta.url)("ml-matrix") as typeof import("ml-matrix");

/** An input's tensor, whole, as [in, out]: what RegMean calls W. */
function wholeInputs({ rows, width, labels, parts, transposed }: TensorReader): Matrix[] {
  const all = labels.map(() => new Float64Array(rows * width));
  for (const { start, inputs } of parts()) inputs.forEach((x, i) => all[i]!.set(x, start));
  return all.map((values) => {
    const matrix = algebra().Matrix.from1DArray(rows, width, values);
    return transposed ? matrix : matrix.transpose();
  });
}

/** G with its off-diagonal entries times α. */
function shrunk(gram: Float32Array, size: number, alpha: number): Matrix {
  const matrix = algebra().Matrix.from1DArray(size, size, gram);
  for (let r = 0; r < size; r++) for (let c = 0; c < size; c++) if (r !== c) matrix.set(r, c, matrix.get(r, c) * alpha);
  return matrix;
}

/**
 * W = (Σ G_i)⁻¹ Σ G_i W_i, [in, out], in float64.
 * @throws RangeError where the sum cannot be inverted
 */
export function solve(grams: readonly Matrix[], inputs: readonly Matrix[], name: string): Matrix {
  const { CholeskyDecomposition, Matrix: { zeros } } = algebra();
  const [left, right] = [zeros(grams[0]!.rows, grams[0]!.columns), zeros(inputs[0]!.rows, inputs[0]!.columns)];
  for (const [i, g] of grams.entries()) {
    // On both sides, so that a direction that no input took gets the mean, and no other moves.
    const ridge = (1e-8 * g.trace()) / g.rows;
    for (let r = 0; r < g.rows; r++) g.set(r, r, g.get(r, r) + ridge);
    left.add(g);
    right.add(g.mmul(inputs[i]!));
  }
  const cholesky = new CholeskyDecomposition(left);
  if (!cholesky.isPositiveDefinite()) throw new RangeError(`${name}: the inputs' Gram matrices add up to one that cannot be inverted; take more --val-per-task or a lower --alpha`);
  return cholesky.solve(right);
}

export const regmean = method({
  name: "regmean", about: "linear layers by least squares on validation inputs, the rest averaged (Jin et al. 2022)", works: "values", needs: "gram", baseless: true,
  parameters: { alpha: number(0.9, "what the Gram matrices' off-diagonal entries are multiplied by", 0, 1) },
  grid: { alpha: [0.1, 0.3, 0.5, 0.7, 0.9, 1] },
  merge(tensor, { alpha }) {
    const { labels, rows, width, transposed = false } = tensor;
    const grams = labels.map((_, i) => tensor.gram?.(i));
    if (grams.some((g) => g === undefined)) {
      const coefficients = labels.map(() => 1 / labels.length);
      return (part, out) => weightedSum(part, coefficients, out);
    }
    const size = transposed ? rows : width;
    const solved = solve(grams.map((g) => shrunk(g!, size, alpha)), wholeInputs(tensor), tensor.name);
    const merged = Float32Array.from((transposed ? solved : solved.transpose()).to1DArray());
    return ({ start }, out) => out.set(merged.subarray(start, start + out.length));
  },
});
