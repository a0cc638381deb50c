import type { TokenRow } from "../models/types.js";
import { rowTokens } from "../models/types.js";
import { shuffled } from "./split.js";

/** An example as rows of tokens: one, or one an ending for a choice. */
export interface EncodedExample {
  readonly rows: readonly TokenRow[];
  readonly label: number;
  readonly length: number;
  /** Of a text to be said: each of them is right. */
  readonly answers?: readonly string[] | undefined;
  /** What an expert says of it: a probability a class or choice. */
  readonly softLabels?: readonly number[] | undefined;
}

export interface Batch {
  readonly rows: readonly TokenRow[];
  readonly labels: readonly number[];
  /**
   * Rows an example; undefined where an example is one row: the head gives its classes, or it is a text
   * to be said.
   */
  readonly choices: number | undefined;
  /** Of every example, where its expert was asked (see {@link EncodedExample}). */
  readonly softLabels?: readonly (readonly number[])[] | undefined;
}

/** How many tokens share one pass: enough that an engine is busy, few enough that the activations stay small. */
export const tokensAPass = 2048;

/** What the mean of a batch's loss is over: its examples, or, where texts are to be said, their tokens. */
export const lossWeight = ({ rows, labels, choices }: Batch): number =>
  isGeneration({ rows, choices })
    ? rows.reduce((sum, { targets }) => sum + targets!.length, 0)
    : labels.length;

/** Whether a batch's rows are texts to be said, and none competes with another. */
export const isGeneration = ({ rows, choices }: Pick<Batch, "rows" | "choices">): boolean =>
  choices === undefined && rows[0]?.targets !== undefined;

export const tokensOf = ({ rows }: Batch): number => rowTokens(...rows);

/** Cuts a batch, in order, into batches of at most `most` tokens (at least an example each). */
export function cutBatch(batch: Batch, most: number): Batch[] {
  const each = batch.choices ?? 1;
  const cuts: number[] = [];
  let room = -1;
  for (let e = 0; e < batch.labels.length; e++) {
    const tokens = rowTokens(...batch.rows.slice(e * each, (e + 1) * each));
    if (tokens > room) {
      cuts.push(e);
      room = most;
    }
    room -= tokens;
  }
  if (cuts.length <= 1) return [batch];
  return cuts.map((from, c) => {
    const to = cuts[c + 1] ?? batch.labels.length;
    return {
      ...batch,
      rows: batch.rows.slice(from * each, to * each),
      labels: batch.labels.slice(from, to),
      softLabels: batch.softLabels?.slice(from, to),
    };
  });
}

function toBatch(examples: readonly EncodedExample[], isChoice: boolean): Batch {
  return {
    rows: examples.flatMap(({ rows }) => rows),
    labels: examples.map(({ label }) => label),
    choices: isChoice ? examples[0]!.rows.length : undefined,
    ...(examples[0]!.softLabels && { softLabels: examples.map(({ softLabels }) => softLabels!) }),
  };
}

/** Cuts examples, sorted by length, into batches that hold one number of rows an example. */
export function bucketed(examples: readonly EncodedExample[], batchSize: number, isChoice: boolean): Batch[] {
  const sorted = [...examples].sort((a, b) => a.rows.length - b.rows.length || a.length - b.length);
  const batches: Batch[] = [];
  for (let start = 0; start < sorted.length;) {
    let end = start + 1;
    while (
      end < sorted.length &&
      end - start < batchSize &&
      sorted[end]!.rows.length === sorted[start]!.rows.length
    )
      end++;
    batches.push(toBatch(sorted.slice(start, end), isChoice));
    start = end;
  }
  return batches;
}

/**
 * An endless supply of training batches: each epoch shuffles the examples, buckets them by length and shuffles the
 * batches. Every draw is seeded by (seed, task, epoch), so batch number n is a function of n alone: a run that
 * resumes at step n needs no saved cursor or random state.
 */
export function trainingBatches(
  task: string,
  examples: readonly EncodedExample[],
  batchSize: number,
  isChoice: boolean,
  seed: number,
): (step: number) => Batch {
  const cache = { epoch: -1, batches: [] as Batch[] };
  const epochBatches = (epoch: number): Batch[] => {
    // Shuffled first, so that which examples of one length meet in a batch changes from epoch to epoch.
    const order = shuffled(examples, `${seed}/order/${task}/${epoch}`);
    return shuffled(bucketed(order, batchSize, isChoice), `${seed}/batches/${task}/${epoch}`);
  };
  const perEpoch = epochBatches(0).length;
  return (step) => {
    const epoch = Math.floor(step / perEpoch);
    if (cache.epoch !== epoch) Object.assign(cache, { epoch, batches: epochBatches(epoch) });
    return cache.batches[step % perEpoch]!;
  };
}
