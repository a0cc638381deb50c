import { add, customGrad, matMul, reshape, tidy, type Tensor, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";

/**
 * base + Σ_i c_i τ_i, one pass over the stacked deltas.
 * @param base any shape, N elements
 * @param deltas [k, N], row i is expert i's task vector, flattened
 * @param coefficients [k]
 * @returns a tensor of base's shape
 */
export function mergeForward(base: Tensor, deltas: Tensor2D, coefficients: Tensor1D): Tensor {
  return tidy(() => {
    const change = matMul(reshape(coefficients, [1, -1]), deltas);
    return add(base, reshape(change, base.shape));
  });
}

/**
 * ∂L/∂c_i = ⟨∂L/∂θ, τ_i⟩ for every expert, one more pass over the deltas.
 * @param dTheta gradient of the loss with respect to the merged tensor, N elements
 * @param deltas [k, N]
 * @returns [k]
 */
export function mergeGradient(dTheta: Tensor, deltas: Tensor2D): Tensor1D {
  return tidy(() => reshape(matMul(deltas, reshape(dTheta, [-1, 1])), [-1]));
}

/**
 * The merge of one tensor as a differentiable op of its coefficients (SuperMerge eq. 4–5 after the gate).
 * Base and deltas are constants that stay off the tape: between forward and backward nothing of size k × N is kept.
 */
export function mergeTensor(base: Tensor, deltas: Tensor2D, coefficients: Tensor1D): Tensor {
  const op = customGrad((row) => ({
    value: mergeForward(base, deltas, row as Tensor1D),
    gradFunc: (dTheta) => mergeGradient(dTheta, deltas),
  }));
  return op(coefficients);
}
