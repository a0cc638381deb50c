import type { Head } from "../models/head.js";
import { cutBatch, lossWeight, tokensAPass, batchTokens, type Batch } from "../tasks/batches.js";

/** A task's part in one step. */
export interface Job {
  /** None where the model scores its rows itself. */
  readonly head: Head | undefined;
  readonly batch: Batch;
  readonly weight: number;
  /** Which of the step's jobs this is, or is a part of. */
  readonly index?: number | undefined;
}

/**
 * Cuts a job into micro-batches of at most `most` tokens. Each is weighted by its share of the mean, so that their
 * losses and gradients add up to the whole job's.
 */
const microBatches = (job: Job, most: number): Job[] =>
  cutBatch(job.batch, most).map((batch) => ({
    ...job,
    batch,
    weight: (job.weight * lossWeight(batch)) / lossWeight(job.batch),
  }));

/**
 * Groups jobs into passes through the model, in order, none of more than `most` tokens if it has more
 * than one example.
 */
export function passesOf(jobs: readonly Job[], most = tokensAPass): Job[][] {
  const passes: { jobs: Job[]; tokens: number }[] = [];
  for (const job of jobs.flatMap((whole, index) => microBatches({ ...whole, index }, most))) {
    const tokens = batchTokens(job.batch);
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
