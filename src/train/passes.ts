import type { Head } from "../models/head.js";
import { batchTokens, cutBatch, groupUpTo, lossWeight, tokensAPass, type Batch } from "../tasks/batches.js";

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
const microBatches = (job: StepJob, index: number, most: number): PassJob[] =>
  cutBatch(job.batch, most).map((batch) => ({
    ...job,
    batch,
    index,
    weight: (job.weight * lossWeight(batch)) / lossWeight(job.batch),
  }));

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
