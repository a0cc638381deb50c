import type { LessonOptions } from "../evaluate/lessons.js";
import type { Divergence } from "../models/lesson.js";
import type { Head } from "../models/layers.js";
import { batchTokens, cutBatch, groupUpTo, tokensAPass, type Batch } from "../tasks/batches.js";
import { lossWeight } from "../tasks/decisions.js";

/**
 * `cross-entropy` uses the labels (SuperMerge; of numbers, their squared error); `entropy` does not (AdaMerging), nor
 * as fusion_bench writes it; `distillation` learns what each task's expert says of its examples, and uses none either.
 */
export const lossNames = ["cross-entropy", "entropy", "entropy-fusion_bench", "distillation"] as const;
export type LossName = (typeof lossNames)[number];

/** And the one that looks at one block of the model at a time: see blocks.ts. */
export const trainLosses = [...lossNames, "block-distillation"] as const;
export type TrainLoss = (typeof trainLosses)[number];

/** How distillation of a language model compares: see models/lesson.ts. */
export const divergences = ["forward", "reverse"] as const satisfies readonly Divergence[];

/** On what texts: see evaluate/lessons.ts. */
export const lessonTexts = ["own", "given"] as const satisfies readonly LessonOptions["distilOn"][];

/** Whether a loss looks at labels: only then may the best step be chosen by them. */
export const usesLabels = (loss: TrainLoss): boolean => loss === "cross-entropy";

/** What of the data a training sees. */
export function dataSeen(
  loss: TrainLoss,
  adaptOn: "validation" | "test",
): "labels" | "inputs" | "test inputs" {
  if (usesLabels(loss)) return "labels";
  return adaptOn === "test" ? "test inputs" : "inputs";
}

/** A task's part in one step. */
export interface StepJob {
  /** None where the model scores its rows itself. */
  readonly head: Head | undefined;
  readonly batch: Batch;
  readonly weight: number;
}

/** A job, or a part of one. */
export interface PassJob extends StepJob {
  /** Which of the step's jobs it is of. */
  readonly index: number;
}

/**
 * Cuts a job into micro-batches of at most `most` tokens. Each is weighted by its share of the mean, so that their
 * losses and gradients add up to the whole job's.
 */
function microBatches(job: StepJob, index: number, most: number): PassJob[] {
  // Texts that are told apart from all others of their batch stay together.
  if (job.batch.kind === "match") return [{ ...job, index }];
  return cutBatch(job.batch, most).map((batch) => ({
    ...job,
    batch,
    index,
    weight: (job.weight * lossWeight(batch)) / lossWeight(job.batch),
  }));
}

/**
 * Groups jobs into passes through the model, in order, none of more than `most` tokens if it has more
 * than one example.
 */
export const modelPasses = (jobs: readonly StepJob[], most = tokensAPass): PassJob[][] =>
  groupUpTo(
    jobs.flatMap((job, index) => microBatches(job, index, most)),
    most,
    ({ batch }) => batchTokens(batch),
  );
