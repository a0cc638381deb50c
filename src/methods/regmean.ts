import { at, f32, f64 } from "../at.js";
import { weightedSum } from "./arrays.js";
import { zip } from "./inputs.js";
import { equalShares } from "./linear.js";
import { solveRows } from "./solve.js";
import { method, parameter, type TensorReader } from "./types.js";

/** An input's tensor, whole, and the Gram matrix of what the layer is given. */
interface LinearLayer {
  /** [out, in] (RegMean's Wᵀ), or as it is stored */
  readonly weight: Float64Array;
  /** [in, in], symmetric */
  readonly gram: Float32Array;
}

/** The inputs' tensors, whole; undefined where there are no Gram matrices for them. */
function readLayers(tensor: TensorReader): LinearLayer[] | undefined {
  const { rows, width, labels } = tensor;
  const grams = labels.flatMap((_, input) => tensor.gram?.(input) ?? []);
  if (grams.length < labels.length) return undefined;
  const layers = grams.map((gram) => ({ gram, weight: new Float64Array(rows * width) }));
  for (const { start, inputs } of tensor.parts())
    for (const [x, { weight }] of zip(inputs, layers)) weight.set(x, start);
  return layers;
}

/** The merged weight as the tensor is stored. */
function solveAsStored(
  { rows, width, transposed = false }: TensorReader,
  layers: readonly LinearLayer[],
  alpha: number,
): Float64Array | undefined {
  if (!transposed) return leastSquares(layers, width, alpha);
  const turned = layers.map(({ gram, weight }) => ({ gram, weight: flipped(weight, rows, width) }));
  const solved = leastSquares(turned, rows, alpha);
  return solved && flipped(solved, width, rows);
}

/** [rows, width] → [width, rows]. */
function flipped(values: Float64Array, rows: number, width: number): Float64Array {
  const out = new Float64Array(values.length);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < width; c++) out[c * rows + r] = f64(values, r * width + c);
  return out;
}

/** How the Gram matrices are made to be invertible. */
interface Shrinkage {
  /** What their off-diagonal entries are multiplied by. */
  readonly alpha: number;
  /** What is added to the diagonal: that part of its mean entry. */
  readonly ridge: number;
}

function shrunk(gram: Float32Array, size: number, { alpha, ridge }: Shrinkage): Float64Array {
  const out = Float64Array.from(gram, (x) => x * alpha);
  const diagonal = (r: number) => f32(gram, r * (size + 1));
  let trace = 0;
  for (let r = 0; r < size; r++) trace += diagonal(r);
  for (let r = 0; r < size; r++) out[r * (size + 1)] = diagonal(r) + (ridge * trace) / size;
  return out;
}

/**
 * The ridge is on every input's matrix, so that a direction that no input took gets the mean. The first
 * moves nothing else; where few examples leave directions out, α is near 1 and float32's rounding makes
 * the sum indefinite, the next is tried.
 */
const ridges = [1e-8, 1e-6, 1e-4];

/**
 * Wᵀ = (Σ W_iᵀ G_i) (Σ G_i)⁻¹ in float64.
 * @param size what a layer is given
 * @returns [out, in]; undefined where the sum cannot be inverted
 */
function leastSquares(layers: readonly LinearLayer[], size: number, alpha: number): Float64Array | undefined {
  for (const ridge of ridges) {
    const [left, right] = [new Float64Array(size * size), new Float64Array(at(layers, 0).weight.length)];
    for (const { gram, weight } of layers) {
      const g = shrunk(gram, size, { alpha, ridge });
      for (let i = 0; i < left.length; i++) left[i] = f64(left, i) + f64(g, i);
      addProduct(right, weight, g, size);
    }
    if (solveRows(left, right, size)) return right;
  }
  return undefined;
}

/** out += x G for x of rows of `size`: four rows of G at a time, read once for eight rows of x. */
function addProduct(out: Float64Array, x: Float64Array, g: Float64Array, size: number): void {
  const rows = x.length / size;
  const lines = Array.from({ length: size }, (_, p) => g.subarray(p * size, (p + 1) * size));
  for (let from = 0; from < rows; from += 8) {
    const to = Math.min(rows, from + 8);
    for (let p = 0; p < size; p += 4) {
      const g0 = at(lines, p);
      const [g1 = g0, g2 = g0, g3 = g0] = lines.slice(p + 1, p + 4);
      for (let r = from; r < to; r++) {
        const row = r * size;
        // Lines beyond the last count nothing.
        const factor = (q: number) => (q < size ? f64(x, row + q) : 0);
        const [f0, f1, f2, f3] = [factor(p), factor(p + 1), factor(p + 2), factor(p + 3)];
        const target = out.subarray(row, row + size);
        for (let c = 0; c < size; c++)
          target[c] = target[c]! + (f0 * g0[c]! + f1 * g1[c]! + (f2 * g2[c]! + f3 * g3[c]!));
      }
    }
  }
}

export const regmeanMethod = method({
  name: "regmean",
  about: "linear layers by least squares on validation inputs, the rest averaged (Jin et al. 2022)",
  works: "values",
  needs: "gram",
  baseless: true,
  parameters: {
    alpha: parameter.number(0.9, "what the Gram matrices' off-diagonal entries are multiplied by", 0, 1),
  },
  grid: { alpha: [0.1, 0.3, 0.5, 0.7, 0.9, 1] },
  merge(tensor, { alpha }) {
    const { labels, name } = tensor;
    const layers = readLayers(tensor);
    if (!layers) {
      const coefficients = equalShares(labels);
      return ({ inputs }, out) => weightedSum(inputs, coefficients, out);
    }
    const solved = solveAsStored(tensor, layers, alpha);
    if (!solved)
      throw new RangeError(
        `${name}: the inputs' Gram matrices add up to one that cannot be inverted; take more ` +
          "--val-per-task or a lower --alpha",
      );
    const whole = Float32Array.from(solved);
    return ({ start }, out) => out.set(whole.subarray(start, start + out.length));
  },
});
