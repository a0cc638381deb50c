import { cast, concat, dispose, engine, mul, oneHot, reshape, tensor1d, tidy, add, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import type { Table } from "../merge/table.js";
import { mergeGradient } from "../merge/op.js";
import { mergeWeights, type TaskVectors } from "../merge/vectors.js";
import { forward, logits, type Head } from "../models/index.js";
import { crossEntropy, entropy } from "../models/ops.js";
import type { Model, Weights } from "../models/types.js";
import type { Batch } from "../tasks/batches.js";

/** `cross-entropy` uses the labels (SuperMerge); `entropy` does not (AdaMerging). */
export const lossNames = ["cross-entropy", "entropy"] as const;
export type LossName = (typeof lossNames)[number];

/** A task's part in one step. */
export interface Job {
  readonly head: Head;
  readonly batch: Batch;
  readonly weight: number;
}

/** Mean loss of a batch under some weights: a scalar, to be called inside a tidy or a gradient. */
export function batchLoss(model: Model, weights: Weights, { head, batch }: Job, loss: LossName): Tensor {
  const scores = logits(forward(model, weights, batch.tokens), head, batch.choices);
  if (loss === "entropy") return entropy(scores);
  const targets = oneHot(tensor1d([...batch.labels], "int32"), scores.shape[1]) as Tensor2D;
  return crossEntropy(scores, cast(targets, "float32"));
}

/**
 * The loss summed over tasks and its gradient with respect to every coefficient.
 *
 * The chain is cut at the merged weights: they are made once, each task's batch runs through autodiff on its own
 * (so the activations of one task are held at a time) and adds to ∂L/∂θ, and each tensor's deltas are read once
 * more for ⟨∂L/∂θ, τ_i⟩. Device memory beside the task vectors: the merged weights, two gradients of that size
 * and one batch's activations, whatever the number of tasks and experts.
 */
export async function coefficientGradient(
  model: Model, vectors: TaskVectors, coefficients: Table, jobs: readonly Job[], loss: LossName,
): Promise<{ gradient: Table; losses: number[] }> {
  const merged = mergeWeights(vectors, coefficients);
  const losses: Tensor[] = [];
  let total: (Tensor | undefined)[] = vectors.merged.map(() => undefined);
  for (const job of jobs) {
    const before = total;
    const result = tidy(() => {
      const { value, grads } = engine().gradients(() => mul(batchLoss(model, merged.weights, job, loss), job.weight), [...merged.tensors]);
      // A tensor that the forward does not reach has no gradient.
      const sums = (grads as (Tensor | undefined)[]).map((g, i) => (g && before[i] ? add(g, before[i]) : (g ?? before[i])));
      return { value: reshape(value, [1]), sums: sums as Tensor[] };
    });
    dispose(before.filter((t, i) => t !== undefined && t !== result.sums[i]));
    total = result.sums;
    losses.push(result.value);
  }
  // One transfer from the device for all losses and inner products.
  const reached = vectors.merged.flatMap((tensor, i) => (total[i] ? [{ ...tensor, dTheta: total[i] }] : []));
  const packed = tidy(() => concat([...losses, ...reached.map(({ dTheta, deltas }) => mergeGradient(dTheta, deltas))]));
  const numbers = await packed.data();
  dispose([packed, ...losses, ...(total.filter(Boolean) as Tensor[])]);
  merged.dispose();

  const k = coefficients.columns;
  const values = new Float64Array(coefficients.values.length);
  reached.forEach(({ row }, t) => {
    for (let i = 0; i < k; i++) values[row * k + i]! += numbers[jobs.length + t * k + i]!;
  });
  return { gradient: { ...coefficients, values }, losses: Array.from(numbers.subarray(0, jobs.length)) };
}
