import {
  add,
  cast,
  concat,
  dispose,
  engine,
  keep,
  mul,
  oneHot,
  reshape,
  sum,
  tensor1d,
  tensor2d,
  tidy,
  zerosLike,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { innerProducts } from "../merge/merged.js";
import type { Table } from "../merge/table.js";
import type { TaskVectors } from "../merge/vectors.js";
import { logits, type Head } from "../models/head.js";
import { crossEntropy, divergence, entropy, guardedEntropy } from "../models/losses.js";
import { along, rows } from "../models/ops.js";
import type { Model } from "../models/types.js";
import {
  download,
  runStage,
  stageForward,
  stagesOf,
  upload,
  type Boundary,
  type Stage,
} from "../stages/stages.js";
import { openStage, type StageWeights } from "../stages/weights.js";
import { choicesOf, lossWeight, tokensAPass, type Batch } from "../tasks/batches.js";
import type { LossName } from "./losses.js";
import { passesOf, type Job } from "./passes.js";

/** The weighted mean loss of each job, [1] each, from the features of all their rows [rows, width]. */
export function jobLosses(features: Tensor2D, jobs: readonly Job[], loss: LossName): Tensor[] {
  let start = 0;
  return jobs.map(({ head, batch, weight }) => {
    const from = start;
    const mine =
      jobs.length === 1
        ? features
        : rows(
            features,
            tensor1d(
              Int32Array.from(batch.rows, (_, i) => from + i),
              "int32",
            ),
          );
    start += batch.rows.length;
    return reshape(mul(oneLoss(mine, head, batch, loss), weight), [1]);
  });
}

function oneLoss(features: Tensor2D, head: Head | undefined, batch: Batch, loss: LossName): Tensor {
  // Texts to be said: the mean cross-entropy of their tokens.
  if (batch.kind === "generate") return mul(sum(features), -1 / lossWeight(batch));
  const scores = logits(features, head, choicesOf(batch));
  if (loss === "entropy") return entropy(scores);
  if (loss === "entropy-fusion_bench") return guardedEntropy(scores);
  if (loss === "distillation") return divergence(scores, tensor2d(batch.softLabels!.flat(), scores.shape));
  const targets = oneHot(tensor1d([...batch.labels], "int32"), scores.shape[1]) as Tensor2D;
  return crossEntropy(scores, cast(targets, "float32"));
}

export interface StepOptions {
  readonly loss: LossName;
  /** Merge and run one block at a time: its merged weights exist only while it runs. */
  readonly blockwise?: boolean | undefined;
  /** Tokens that share one pass through the model; a larger batch runs in several. */
  readonly microBatch?: number | undefined;
}

/** One pass through the model: some jobs, laid out, and what each stage left for the next. */
interface Pass {
  readonly jobs: readonly Job[];
  readonly batch: unknown;
  /** What stage s starts from; nothing for the first. */
  readonly inputs: Boundary[];
  /** ∂L/∂ of what the stage in hand hands on; nothing before the last stage has run. */
  upstream: Boundary;
}

/**
 * The loss summed over tasks and its gradient with respect to every coefficient.
 *
 * The chain is cut at the merged weights: they are made once a stage, a pass at a time runs through
 * autodiff and adds to ∂L/∂θ, and each tensor's deltas are read once more for ⟨∂L/∂θ, τ_i⟩. With one
 * stage (the whole model), device memory beside the task vectors is the merged weights, two gradients
 * of that size (one where a single pass does) and a pass's activations. Block by block it is that of
 * the largest block: a first sweep leaves each block's input in host memory, then each block, last to
 * first, is merged again, run again and differentiated. Neither grows with tasks or experts.
 */
export async function coefficientGradient(
  model: Model,
  vectors: TaskVectors,
  coefficients: Table,
  jobs: readonly Job[],
  { loss, blockwise = false, microBatch = tokensAPass }: StepOptions,
): Promise<{ gradient: Table; losses: number[] }> {
  const stages = stagesOf(model, blockwise);
  const passes = passesOf(jobs, microBatch).map((part): Pass => ({
    jobs: part,
    batch: model.prepare(part.flatMap(({ batch }) => batch.rows)),
    inputs: [[]],
    upstream: [],
  }));
  const open = (stage: Stage) =>
    openStage(
      model,
      vectors,
      coefficients,
      stage,
      passes.map(({ batch }) => batch),
    );
  for (const [s, stage] of stages.slice(0, -1).entries()) {
    const opened = await open(stage);
    try {
      for (const pass of passes)
        pass.inputs.push(
          await stageForward(model, stage, opened.weights, { batch: pass.batch, boundary: pass.inputs[s]! }),
        );
    } finally {
      opened.dispose();
    }
  }
  // Below the first block that anybody changed there is nothing to differentiate.
  const isChanged = ({ blocks }: Stage) =>
    blocks.some(({ shapes }) => [...shapes.keys()].some((name) => vectors.tensors.get(name)!.experts.length));
  const lowest = stages.findIndex(isChanged);
  const values = new Float64Array(coefficients.values.length);
  const losses: number[] = jobs.map(() => 0);
  for (let s = stages.length - 1; s >= lowest; s--) {
    const opened = await open(stages[s]!);
    const { products, passLosses } = await stageBackward(
      model,
      vectors,
      { s, stage: stages[s]!, opened },
      passes,
      loss,
    );
    for (const { name, numbers } of products) {
      const { row, experts } = vectors.tensors.get(name)!;
      experts.forEach((column, i) => (values[row * coefficients.columns + column]! += numbers[i]!));
    }
    // A job may have been cut into several: each carries its place.
    passes.flatMap((pass) => pass.jobs).forEach(({ index }, i) => (losses[index!]! += passLosses[i] ?? 0));
  }
  return { gradient: { ...coefficients, values }, losses };
}

/** One stage backward over all passes; disposes the stage's weights. */
async function stageBackward(
  model: Model,
  vectors: TaskVectors,
  { s, stage, opened }: { s: number; stage: Stage; opened: StageWeights },
  passes: readonly Pass[],
  loss: LossName,
): Promise<{ products: { name: string; numbers: Float32Array }[]; passLosses: ArrayLike<number> }> {
  const { weights, changed } = opened;
  const losses: Tensor[] = [];
  let total: (Tensor | undefined)[] = changed.map(() => undefined);
  for (const pass of passes) {
    const carried = upload(pass.inputs[s]!);
    const upstream = upload(pass.upstream);
    const all = tidy(() => {
      const { grads } = engine().gradients(() => {
        const state = runStage(model, stage, weights, pass.batch, carried);
        if (!stage.last) return along(model.carried(state), upstream);
        const each = jobLosses(model.features(state), pass.jobs, loss);
        losses.push(keep(concat(each)));
        return each.reduce((a, b) => add(a, b));
      }, [...changed.map(({ tensor }) => tensor), ...carried]);
      return grads;
    }) as (Tensor | undefined)[];
    // What a stage hands through without looking at it (an encoder's result, at a decoder's end) has no
    // gradient there.
    const back = carried.map((t, i) => all[changed.length + i] ?? zerosLike(t));
    dispose([...carried, ...upstream]);
    // One at a time, so that no third copy of the gradients is held. A tensor that the forward does not
    // reach has none.
    total = changed.map((_, i) => {
      const [before, now] = [total[i], all[i]];
      if (!before || !now) return before ?? now;
      const sum = add(before, now);
      dispose([before, now]);
      return sum;
    });
    pass.upstream = await download(back);
  }
  // The merged weights are done with; the task vectors are read once more.
  opened.dispose();
  const reached = changed.flatMap(({ request }, i) => (total[i] ? [{ request, gradient: total[i] }] : []));
  const products = await innerProducts(
    vectors,
    reached.map(({ request }) => request),
    reached.map(({ gradient }) => gradient),
  );
  dispose(reached.map(({ gradient }) => gradient));
  if (products.length + losses.length === 0) return { products: [], passLosses: [] };
  // One transfer from the device for all of them.
  const packed = tidy(() => concat([...losses, ...products]));
  const numbers = (await packed.data()) as Float32Array;
  dispose([packed, ...losses, ...products]);
  let at = losses.reduce((sum, { size }) => sum + size, 0);
  const passLosses = numbers.subarray(0, at);
  return {
    passLosses,
    products: reached.map(({ request: { name } }, i) => ({
      name,
      numbers: numbers.subarray(at, (at += products[i]!.size)),
    })),
  };
}
