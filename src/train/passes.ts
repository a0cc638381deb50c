import type { Head } from "../models/index.js";
import type { Batch } from "../tasks/batches.js";

/** A task's part in one step. */
export interface Job {
  readonly head: Head;
  readonly batch: Batch;
  readonly weight: number;
  /** Which of the step's jobs this is, or is a part of. */
  readonly index?: number | undefined;
}

/** How many tokens share one pass: enough that an engine is busy, few enough that the activations stay small. */
export const tokensAPass = 2048;

const tokensOf = ({ rows }: Batch): number => rows.reduce((sum, { ids }) => sum + ids.length, 0);

/**
 * Cuts a job into micro-batches of at most `most` tokens (at least an example each). Each is weighted by its share of
 * the examples, so that their losses and gradients add up to the whole job's.
 */
function microBatches(job: Job, most: number): Job[] {
  const { batch, weight } = job;
  const each = batch.choices ?? 1;
  const cuts: number[] = [];
  let room = -1;
  for (let e = 0; e < batch.labels.length; e++) {
    const tokens = batch.rows.slice(e * each, (e + 1) * each).reduce((sum, { ids }) => sum + ids.length, 0);
    if (tokens > room) {
      cuts.push(e);
      room = most;
    }
    room -= tokens;
  }
  if (cuts.length === 1) return [job];
  return cuts.map((from, c) => {
    const to = cuts[c + 1] ?? batch.labels.length;
    return { ...job, weight: (weight * (to - from)) / batch.labels.length, batch: { ...batch, rows: batch.rows.slice(from * each, to * each), labels: batch.labels.slice(from, to) } };
  });
}

/** Groups jobs into passes through the model, in order, none of more than `most` tokens if it has more than one example. */
export function passesOf(jobs: readonly Job[], most = tokensAPass): Job[][] {
  const passes: { jobs: Job[]; tokens: number }[] = [];
  for (const job of jobs.flatMap((whole, index) => microBatches({ ...whole, index }, most))) {
    const tokens = tokensOf(job.batch);
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
