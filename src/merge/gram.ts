import { tidy } from "@tensorflow/tfjs-core";
import { at, f64 } from "../at.js";
import { dot } from "../tensor/dtype.js";
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
  const layers = vectors.layers.map(({ id }) => ({ id, products: new Float64Array(k * k) }));
  const requests = vectors.layers.flatMap(({ names }) => names.map((name) => ({ name })));
  for await (const { request, tensor, deltas } of vectors.stream(requests)) {
    if (!deltas) throw new Error(`no expert changed "${tensor.name}", which is in a layer`);
    const stack = tidy(() => unpacked(deltas));
    const values = await stack.data<"float32">();
    stack.dispose();
    const { experts, row } = tensor;
    const { products } = at(layers, row);
    const size = values.length / experts.length;
    const vectorOf = (n: number) => values.subarray(n * size, (n + 1) * size);
    for (const [a, i] of experts.entries()) {
      for (const [b, j] of experts.slice(0, a + 1).entries()) {
        const product = dot(vectorOf(a), vectorOf(b));
        products[i * k + j] = f64(products, i * k + j) + product;
        if (i !== j) products[j * k + i] = f64(products, j * k + i) + product;
      }
    }
    onTensor?.(request + 1, requests.length);
  }
  return layers.map(({ id, products }) => ({ layer: id, gram: Array.from(products) }));
}
