import {
  add,
  customGrad,
  engine,
  getBackend,
  getKernel,
  matMul,
  reshape,
  sum,
  tidy,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { scatterSparse, type Deltas } from "./deltas.js";

/** Runs one of the engine's own kernels on deltas (backend/), where it has it. */
function kernel(
  op: "MergeDeltas" | "DeltaProducts" | "UnpackDeltas",
  deltas: Deltas,
  inputs: Record<string, Tensor> = {},
): Tensor | undefined {
  const { packing, rows, width, data } = deltas;
  const name = `${op}_${packing}`;
  const packed: Record<string, Tensor> = packing === "int8" ? { data, scales: deltas.scales } : { data };
  return getKernel(name, getBackend()) && engine().runKernel(name, { ...inputs, ...packed }, { rows, width });
}

/**
 * Deltas as float32, [experts, N]: a view of them, or for an engine that can only unpack, all of one
 * tensor at once.
 */
export function unpacked(deltas: Deltas): Tensor2D {
  const flat = flatDeltas(deltas);
  if (!flat)
    throw new Error(`the ${getBackend()} engine has no kernel for deltas packed as ${deltas.packing}`);
  return reshape(flat, [deltas.experts.length, -1]);
}

function flatDeltas(deltas: Deltas): Tensor | undefined {
  if (deltas.packing === "f32") return deltas.data;
  return deltas.packing === "sparse" ? scatterSparse(deltas) : kernel("UnpackDeltas", deltas);
}

/**
 * base + Σ_i c_i τ_i, one pass over the stacked deltas.
 * @param base any shape, N = rows × width elements
 * @param coefficients [experts of the deltas]
 * @returns a tensor of base's shape
 */
export function mergeForward(base: Tensor, deltas: Deltas, coefficients: Tensor1D): Tensor {
  return tidy(() => {
    const merged = kernel("MergeDeltas", deltas, { base, coefficients });
    if (merged) return reshape(merged, base.shape);
    const change = matMul(reshape(coefficients, [1, -1]), unpacked(deltas));
    return add(base, reshape(change, base.shape));
  });
}

/**
 * ∂L/∂c_i = ⟨∂L/∂θ, τ_i⟩ for every expert, one more pass over the deltas.
 * @param dTheta gradient of the loss with respect to the merged tensor, N elements
 * @returns [experts of the deltas]
 */
export function mergeGradient(dTheta: Tensor, deltas: Deltas): Tensor1D {
  return tidy(() => {
    const products = kernel("DeltaProducts", deltas, { dTheta });
    // Many groups of threads, each with its own sums.
    if (products) return sum<Tensor1D>(products, 0);
    return reshape(matMul(unpacked(deltas), reshape(dTheta, [-1, 1])), [-1]);
  });
}

/**
 * The merge of one tensor as a differentiable op of its coefficients (SuperMerge eq. 4–5 after the gate).
 * Base and deltas are constants that stay off the tape: between forward and backward nothing of size k × N is kept.
 */
export function mergeTensor(base: Tensor, deltas: Deltas, coefficients: Tensor1D): Tensor {
  const op = customGrad((row) => ({
    value: mergeForward(base, deltas, row as Tensor1D),
    gradFunc: (dTheta) => mergeGradient(dTheta, deltas),
  }));
  return op(coefficients);
}
