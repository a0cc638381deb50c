import { cast, concat, dispose, engine, keep, mul, oneHot, reshape, tensor1d, tidy, add, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import type { Table } from "../merge/table.js";
import type { TaskVectors } from "../merge/vectors.js";
import { forward, logits, type Head } from "../models/index.js";
import { crossEntropy, entropy, rows } from "../models/ops.js";
import type { Model, Weights } from "../models/types.js";
import type { Batch } from "../tasks/batches.js";
import { leafWeights } from "./leaves.js";

/** `cross-entropy` uses the labels (SuperMerge); `entropy` does not (AdaMerging). */
export const lossNames = ["cross-entropy", "entropy"] as const;
export type LossName = (typeof lossNames)[number];

/** A task's part in one step. */
export interface Job {
  readonly head: Head;
  readonly batch: Batch;
  readonly weight: number;
}

/** The weighted mean loss of each job under some weights, [1] each: to be called inside a tidy or a gradient. */
export function jobLosses(model: Model, weights: Weights, jobs: readonly Job[], loss: LossName): Tensor[] {
  const features = forward(model, weights, jobs.flatMap(({ batch }) => batch.rows));
  let start = 0;
  return jobs.map(({ head, batch, weight }) => {
    const from = start;
    const mine = jobs.length === 1 ? features : rows(features, tensor1d(Int32Array.from(batch.rows, (_, i) => from + i), "int32"));
    start += batch.rows.length;
    const scores = logits(mine, head, batch.choices);
    if (loss === "entropy") return mul(entropy(scores), weight);
    const targets = oneHot(tensor1d([...batch.labels], "int32"), scores.shape[1]) as Tensor2D;
    return mul(crossEntropy(scores, cast(targets, "float32")), weight);
  });
}

/** How many tokens share one pass: enough that an engine is busy, few enough that the activations stay small. */
const tokensAPass = 2048;

/** Groups jobs into passes through the model, in order. A job that is larger alone is a pass of its own. */
export function passesOf(jobs: readonly Job[], most = tokensAPass): Job[][] {
  const passes: { jobs: Job[]; tokens: number }[] = [];
  for (const job of jobs) {
    const tokens = job.batch.rows.reduce((sum, { ids }) => sum + ids.length, 0);
    const last = passes.at(-1);
    if (last && last.tokens + tokens <= most) {
      last.jobs.push(job);
      last.tokens += tokens;
    } else {
      passes.push({ jobs: [job], tokens });
    }
  }
  return passes.map((pass) => pass.jobs);
}

/**
 * The loss summed over tasks and its gradient with respect to every coefficient.
 *
 * The chain is cut at the merged weights: they are made once, some tasks at a time run through autodiff
 * ({@link passesOf}) and add to ∂L/∂θ, and each tensor's deltas are read once more for ⟨∂L/∂θ, τ_i⟩. Device memory
 * beside the task vectors: the merged weights, two gradients of that size (one where a single pass does) and a pass's
 * activations, whatever the number of tasks and experts.
 */
export async function coefficientGradient(
  model: Model, vectors: TaskVectors, coefficients: Table, jobs: readonly Job[], loss: LossName,
): Promise<{ gradient: Table; losses: number[] }> {
  const { weights, leaves } = leafWeights(model, vectors, coefficients);
  const losses: Tensor[] = [];
  let total: (Tensor | undefined)[] = leaves.map(() => undefined);
  for (const pass of passesOf(jobs)) {
    const before = total;
    total = tidy(() => {
      const { grads } = engine().gradients(() => {
        const each = jobLosses(model, weights, pass, loss);
        losses.push(keep(concat(each.map((l) => reshape(l, [1])))));
        return each.reduce((a, b) => add(a, b));
      }, leaves.map(({ tensor }) => tensor));
      // A tensor that the forward does not reach has no gradient.
      return (grads as (Tensor | undefined)[]).map((g, i) => (g && before[i] ? add(g, before[i]) : (g ?? before[i]))) as Tensor[];
    });
    dispose(before.filter((t, i) => t !== undefined && t !== total[i]));
  }
  // One transfer from the device for all losses and inner products.
  const reached = leaves.flatMap((leaf, i) => (total[i] ? [{ leaf, gradient: total[i] }] : []));
  const packed = tidy(() => concat([...losses, ...reached.map(({ leaf, gradient }) => leaf.products(gradient))]));
  const numbers = await packed.data();
  dispose([packed, ...losses, ...(total.filter(Boolean) as Tensor[]), ...leaves.map(({ tensor }) => tensor)]);

  const values = new Float64Array(coefficients.values.length);
  let at = jobs.length;
  for (const { leaf: { merged: { row, deltas } } } of reached) {
    for (const column of deltas.experts) values[row * coefficients.columns + column]! += numbers[at++]!;
  }
  return { gradient: { ...coefficients, values }, losses: Array.from(numbers.subarray(0, jobs.length)) };
}
