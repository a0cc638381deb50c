import { add, dispose, keep, matMul, mul, tidy, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { forward } from "../models/index.js";
import type { Model, Weights } from "../models/types.js";
import type { EncodedExample } from "../tasks/batches.js";
import { weightsByName, type ModelWeights } from "./weights.js";

/**
 * Gram matrices of what a model's linear layers are given on a task's inputs (RegMean, Jin et al.
 * 2022): XᵀX / tokens, one row of tokens at a time, so that there is no padding among them. Device
 * memory: the weights, the matrices, one row's activations.
 * @returns one square matrix a linear layer's weight, [in, in]
 */
export async function gramsOf(
  model: Model,
  modelWeights: ModelWeights,
  examples: readonly EncodedExample[],
  onExample: (done: number, of: number) => void,
): Promise<Map<string, Float32Array>> {
  const grams = new Map<string, { readonly sum: Tensor; readonly count: number }>();
  const weights: Weights = Object.assign(weightsByName(modelWeights), {
    onLinearInput(name: string, x: Tensor2D) {
      const before = grams.get(name);
      const gram = matMul(x, x, true, false);
      const sum = keep(before ? add(before.sum, gram) : gram);
      before?.sum.dispose();
      grams.set(name, { sum, count: (before?.count ?? 0) + x.shape[0] });
    },
  } satisfies Partial<Weights>);
  try {
    for (const [n, { rows }] of examples.entries()) {
      for (const row of rows) tidy(() => void forward(model, weights, [row]));
      onExample(n + 1, examples.length);
    }
    const out = new Map<string, Float32Array>();
    for (const [name, { sum, count }] of grams) {
      const mean = tidy(() => mul(sum, 1 / count));
      out.set(name, await mean.data<"float32">());
      mean.dispose();
    }
    return out;
  } finally {
    dispose([...grams.values()].map(({ sum }) => sum));
  }
}
