import { weightedSum } from "./linear.js";
import { solveRows } from "./solve.js";
import { method, number, type TensorReader } from "./types.js";

/** An input's tensor, whole, as rows of `size` (what the layer is given): RegMean's Wᵀ. */
function wholeInputs({ rows, width, labels, parts, transposed }: TensorReader): Float64Array[] {
  const all = labels.map(() => new Float64Array(rows * width));
  for (const { start, inputs } of parts()) inputs.forEach((x, i) => all[i]!.set(x, start));
  return transposed ? all.map((values) => flipped(values, rows, width)) : all;
}

/** [rows, width] → [width, rows]. */
function flipped(values: Float64Array, rows: number, width: number): Float64Array {
  const out = new Float64Array(values.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < width; c++) out[c * rows + r] = values[r * width + c]!;
  return out;
}

/** G with its off-diagonal entries times α, and a ridge on its diagonal: that part of its mean diagonal entry. */
function shrunk(gram: Float32Array, size: number, alpha: number, ridge: number): Float64Array {
  const out = Float64Array.from(gram, (x) => x * alpha);
  let trace = 0;
  for (let r = 0; r < size; r++) trace += gram[r * (size + 1)]!;
  for (let r = 0; r < size; r++) out[r * (size + 1)] = gram[r * (size + 1)]! + (ridge * trace) / size;
  return out;
}

/**
 * The ridge is on every input's matrix, so that a direction that no input took gets the mean. The first
 * moves nothing else; where few examples leave directions out, α is near 1 and float32's rounding makes
 * the sum indefinite, the next is tried.
 */
const ridges = [1e-8, 1e-6, 1e-4];

/**
 * Wᵀ = (Σ W_iᵀ G_i) (Σ G_i)⁻¹ in float64, [out, in] in rows.
 * @param grams [in, in] each, symmetric
 * @param inputs [out, in] each
 * @throws RangeError where the sum cannot be inverted
 */
function merged(
  grams: readonly Float32Array[],
  inputs: readonly Float64Array[],
  size: number,
  alpha: number,
  name: string,
): Float64Array {
  for (const ridge of ridges) {
    const [left, right] = [new Float64Array(size * size), new Float64Array(inputs[0]!.length)];
    for (const [i, gram] of grams.entries()) {
      const g = shrunk(gram, size, alpha, ridge);
      for (let at = 0; at < left.length; at++) left[at] = left[at]! + g[at]!;
      addProduct(right, inputs[i]!, g, size);
    }
    if (solveRows(left, right, size)) return right;
  }
  throw new RangeError(
    `${name}: the inputs' Gram matrices add up to one that cannot be inverted; take more ` +
      "--val-per-task or a lower --alpha",
  );
}

/** out += x G for x of rows of `size`: four rows of G at a time, read once for eight rows of x. */
function addProduct(out: Float64Array, x: Float64Array, g: Float64Array, size: number): void {
  const rows = x.length / size;
  const lines = Array.from({ length: size }, (_, p) => g.subarray(p * size, (p + 1) * size));
  for (let from = 0; from < rows; from += 8) {
    const to = Math.min(rows, from + 8);
    for (let p = 0; p < size; p += 4) {
      const [g0, g1 = g0!, g2 = g0!, g3 = g0!] = lines.slice(p, p + 4);
      for (let r = from; r < to; r++) {
        const at = r * size;
        const factor = (i: number) => (p + i < size ? x[at + p + i]! : 0);
        const [f0, f1, f2, f3] = [factor(0), factor(1), factor(2), factor(3)];
        const target = out.subarray(at, at + size);
        for (let c = 0; c < size; c++)
          target[c] = target[c]! + (f0 * g0![c]! + f1 * g1[c]! + (f2 * g2[c]! + f3 * g3[c]!));
      }
    }
  }
}

export const regmean = method({
  name: "regmean",
  about: "linear layers by least squares on validation inputs, the rest averaged (Jin et al. 2022)",
  works: "values",
  needs: "gram",
  baseless: true,
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
    const solved = merged(grams as Float32Array[], wholeInputs(tensor), size, alpha, tensor.name);
    const whole = Float32Array.from(transposed ? flipped(solved, width, rows) : solved);
    return ({ start }, out) => out.set(whole.subarray(start, start + out.length));
  },
});
