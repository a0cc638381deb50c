import { matMul, tidy } from "@tensorflow/tfjs-core";
import { unpacked } from "./op.js";
import type { TaskVectors } from "./vectors.js";

/** ⟨τ_i, τ_j⟩ of every two experts, row after row, summed over the tensors of one layer. */
export interface LayerGram {
  readonly layer: string;
  readonly gram: readonly number[];
}

/**
 * Every layer's k × k Gram matrix of the task vectors in one pass over them. Device memory: a part of the task vectors.
 * Products of a part are taken in float32, their sums in float64.
 */
export async function gramMatrices(vectors: TaskVectors, onTensor?: (done: number, of: number) => void): Promise<LayerGram[]> {
  const k = vectors.experts.length;
  const sums = vectors.layers.map(() => new Float64Array(k * k));
  const requests = vectors.layers.flatMap(({ names }) => names.map((name) => ({ name })));
  for await (const { request, tensor, deltas } of vectors.stream(requests)) {
    const products = tidy(() => {
      const stack = unpacked(deltas!);
      return matMul(stack, stack, false, true);
    });
    const values = await products.data();
    products.dispose();
    const { experts, row } = tensor;
    experts.forEach((i, a) => experts.forEach((j, b) => (sums[row]![i * k + j]! += values[a * experts.length + b]!)));
    onTensor?.(request + 1, requests.length);
  }
  return vectors.layers.map(({ id }, row) => ({ layer: id, gram: Array.from(sums[row]!) }));
}
