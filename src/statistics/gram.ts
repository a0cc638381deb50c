import { add, dispose, keep, matMul, mul, tidy, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { forward } from "../models/index.js";
import type { Model, Weights } from "../models/types.js";
import type { EncodedExample } from "../tasks/batches.js";
import type { ModelWeights } from "./weights.js";

/**
 * Gram matrices of what a model's linear layers are given on a task's inputs (RegMean, Jin et al.
 * 2022): XᵀX / tokens, one row of tokens at a time, so that there is no padding among them. Device
 * memory: the weights, the matrices, one row's activations.
 * @returns one square matrix a linear layer's weight, [in, in]
 */
export async function gramsOf(
  model: Model,
  { tensors, names }: ModelWeights,
  examples: readonly EncodedExample[],
  onExample: (done: number, of: number) => void,
): Promise<Map<string, Float32Array>> {
  const at = new Map(names.map((name, i) => [name, i]));
  const sums = new Map<string, Tensor>();
  const counts = new Map<string, number>();
  const weights: Weights = Object.assign((name: string) => tensors[at.get(name)!]!, {
    onLinearInput(name: string, x: Tensor2D) {
      const before = sums.get(name);
      sums.set(name, keep(before ? add(before, matMul(x, x, true, false)) : matMul(x, x, true, false)));
      before?.dispose();
      counts.set(name, (counts.get(name) ?? 0) + x.shape[0]);
    },
  });
  try {
    for (const [n, { rows }] of examples.entries()) {
      for (const row of rows) tidy(() => void forward(model, weights, [row]));
      onExample(n + 1, examples.length);
    }
    const out = new Map<string, Float32Array>();
    for (const [name, sum] of sums) {
      const mean = tidy(() => mul(sum, 1 / counts.get(name)!));
      out.set(name, (await mean.data()) as Float32Array);
      mean.dispose();
    }
    return out;
  } finally {
    dispose([...sums.values()]);
  }
}
