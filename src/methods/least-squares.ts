import { at, f64 } from "../at.js";
import { addProduct, flipped } from "../tensor/svd.js";
import { solveRows } from "./solve.js";
import type { TensorReader } from "./types.js";

/** An input's matrix, and what its error is measured by. */
export interface LinearLayer {
  /** As the tensor is stored. */
  readonly weight: Float64Array;
  /** [in, in], symmetric: Σ x xᵀ of what the layer is given. Made when it is asked for. */
  gram(): Float32Array | Float64Array;
}

/**
 * The matrix whose outputs are nearest to every input's own: Wᵀ = (Σ W_iᵀ G_i) (Σ G_i)⁻¹ in float64, as the tensor is
 * stored.
 * @param alpha what the Gram matrices' off-diagonal entries are multiplied by
 * @returns undefined where the sum cannot be inverted
 */
export function leastSquares(
  { rows, width, transposed = false }: Pick<TensorReader, "rows" | "width" | "transposed">,
  layers: readonly LinearLayer[],
  alpha: number,
): Float64Array | undefined {
  if (!transposed) return nearestOutputs(layers, width, alpha);
  const turned = layers.map((layer) => ({
    weight: flipped(layer.weight, rows, width),
    gram: () => layer.gram(),
  }));
  const solved = nearestOutputs(turned, rows, alpha);
  return solved && flipped(solved, width, rows);
}

/** How the Gram matrices are made to be invertible. */
interface Shrinkage {
  /** What their off-diagonal entries are multiplied by. */
  readonly alpha: number;
  /** What is added to the diagonal: that part of its mean entry. */
  readonly ridge: number;
}

function shrunk(gram: Float32Array | Float64Array, size: number, { alpha, ridge }: Shrinkage): Float64Array {
  const out = Float64Array.from(gram, (x) => x * alpha);
  const diagonal = (r: number) => gram[r * (size + 1)] ?? 0;
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
 * @param size what a layer is given
 * @returns [out, in]; undefined where the sum cannot be inverted
 */
function nearestOutputs(
  layers: readonly LinearLayer[],
  size: number,
  alpha: number,
): Float64Array | undefined {
  for (const ridge of ridges) {
    const [left, right] = [new Float64Array(size * size), new Float64Array(at(layers, 0).weight.length)];
    for (const { gram, weight } of layers) {
      const g = shrunk(gram(), size, { alpha, ridge });
      for (let i = 0; i < left.length; i++) left[i] = f64(left, i) + f64(g, i);
      addProduct(right, weight, g, { rows: weight.length / size, inner: size, width: size });
    }
    if (solveRows(left, right, size)) return right;
  }
  return undefined;
}
