import { tidy } from "@tensorflow/tfjs-core";
import { unpacked } from "./op.js";
import type { TaskVectors } from "./vectors.js";

/** ⟨τ_i, τ_j⟩ of every two experts, row after row, summed over the tensors of one layer. */
export interface LayerGram {
  readonly layer: string;
  readonly gram: readonly number[];
}

/**
 * Every layer's k × k Gram matrix of the task vectors in one pass over them. Device memory: a part of
 * the task vectors. The products are summed on the host in float64: a norm is a sum of millions of
 * positive numbers, of which some engines' float32 products lose a hundredth.
 */
export async function gramMatrices(
  vectors: TaskVectors,
  onTensor?: (done: number, of: number) => void,
): Promise<LayerGram[]> {
  const k = vectors.experts.length;
  const sums = vectors.layers.map(() => new Float64Array(k * k));
  const requests = vectors.layers.flatMap(({ names }) => names.map((name) => ({ name })));
  for await (const { request, tensor, deltas } of vectors.stream(requests)) {
    const stack = tidy(() => unpacked(deltas!));
    const values = (await stack.data()) as Float32Array;
    stack.dispose();
    const { experts, row } = tensor;
    const size = values.length / experts.length;
    for (const [a, i] of experts.entries()) {
      for (const [b, j] of experts.slice(0, a + 1).entries()) {
        let product = 0;
        for (let at = 0; at < size; at++) product += values[a * size + at]! * values[b * size + at]!;
        sums[row]![i * k + j]! += product;
        if (i !== j) sums[row]![j * k + i]! += product;
      }
    }
    onTensor?.(request + 1, requests.length);
  }
  return vectors.layers.map(({ id }, row) => ({ layer: id, gram: Array.from(sums[row]!) }));
}
