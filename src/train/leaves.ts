import { tensor1d, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { mergeGradient, mergeRows } from "../merge/op.js";
import type { Table } from "../merge/table.js";
import { coefficientsOf, mergeOne, type MergedTensor, type TaskVectors } from "../merge/vectors.js";
import { rows } from "../models/ops.js";
import type { Model, Weights } from "../models/types.js";

/** A tensor at which autodiff stops in a step: the caller disposes it. */
export interface Leaf {
  readonly merged: MergedTensor;
  readonly tensor: Tensor;
  /** ∂L/∂tensor → ∂L/∂coefficients of the experts that changed it. */
  products(gradient: Tensor): Tensor;
}

/**
 * The weights of one step and the leaves its gradient is asked for. A changed tensor is merged and is itself the leaf.
 * A changed table (an embedding) is never merged as a whole: only the rows that a batch names are, each once, and the
 * leaf is its coefficients.
 */
export function leafWeights(model: Model, vectors: TaskVectors, coefficients: Table): { weights: Weights; leaves: Leaf[] } {
  const leaves = vectors.merged.map((merged): Leaf => {
    if (model.tables.has(merged.name)) return { merged, tensor: coefficientsOf(merged, coefficients), products: (gradient) => gradient };
    return { merged, tensor: mergeOne(merged, coefficients), products: (gradient) => mergeGradient(gradient, merged.deltas) };
  });
  const byName = new Map(leaves.map((leaf) => [leaf.merged.name, leaf]));
  const weights = (name: string) => byName.get(name)?.tensor ?? vectors.base(name);
  return {
    leaves,
    weights: Object.assign(weights, {
      frozen: (name: string) => !byName.has(name),
      rows(name: string, ids: Int32Array): Tensor2D {
        const leaf = byName.get(name);
        if (!leaf) return rows(vectors.base(name) as Tensor2D, tensor1d(ids, "int32"));
        const unique = [...new Set(ids)].sort((a, b) => a - b);
        const place = new Map(unique.map((id, at) => [id, at]));
        const { base, deltas } = leaf.merged;
        const merged = mergeRows(base as Tensor2D, deltas, leaf.tensor as never, tensor1d(unique, "int32"));
        return rows(merged, tensor1d(ids.map((id) => place.get(id)!), "int32"));
      },
    }),
  };
}
