import type { TokenBatch } from "../models/types.js";
import type { Example } from "./examples.js";
import { shuffled } from "./split.js";
import type { Encoded, TextEncoder } from "./tokenize.js";

/** An example as rows of tokens: one, or one an ending for a choice. */
export interface EncodedExample {
  readonly rows: readonly Encoded[];
  readonly label: number;
  readonly length: number;
}

export interface Batch {
  readonly tokens: TokenBatch;
  readonly labels: readonly number[];
  /** Rows an example; undefined where an example is one row and the head gives its classes. */
  readonly choices: number | undefined;
}

export function encodeExamples(examples: readonly Example[], encoder: TextEncoder): EncodedExample[] {
  return examples.map(({ texts, label }) => {
    const rows = texts.map((text) => encoder.encode(text));
    return { rows, label, length: Math.max(...rows.map(({ ids }) => ids.length)) };
  });
}

/** Pads rows to the longest of the batch. */
function pad(rows: readonly Encoded[], padId: number): TokenBatch {
  const length = Math.max(...rows.map(({ ids }) => ids.length));
  const size = rows.length;
  const ids = new Int32Array(size * length).fill(padId);
  const types = new Int32Array(size * length);
  const mask = new Uint8Array(size * length);
  rows.forEach((row, r) => {
    ids.set(row.ids, r * length);
    types.set(row.types, r * length);
    mask.fill(1, r * length, r * length + row.ids.length);
  });
  return { size, length, ids, types, mask };
}

function toBatch(examples: readonly EncodedExample[], isChoice: boolean, padId: number): Batch {
  return {
    tokens: pad(examples.flatMap(({ rows }) => rows), padId),
    labels: examples.map(({ label }) => label),
    choices: isChoice ? examples[0]!.rows.length : undefined,
  };
}

/** Cuts examples, sorted by length, into batches that hold one number of rows an example. */
export function bucketed(examples: readonly EncodedExample[], batchSize: number, isChoice: boolean, padId: number): Batch[] {
  const sorted = [...examples].sort((a, b) => a.rows.length - b.rows.length || a.length - b.length);
  const batches: Batch[] = [];
  for (let start = 0; start < sorted.length; ) {
    let end = start + 1;
    while (end < sorted.length && end - start < batchSize && sorted[end]!.rows.length === sorted[start]!.rows.length) end++;
    batches.push(toBatch(sorted.slice(start, end), isChoice, padId));
    start = end;
  }
  return batches;
}

/**
 * An endless supply of training batches: each epoch shuffles the examples, buckets them by length and shuffles the
 * batches. Every draw is seeded by (seed, task, epoch), so batch number n is a function of n alone: a run that
 * resumes at step n needs no saved cursor or random state.
 */
export function trainingBatches(task: string, examples: readonly EncodedExample[], batchSize: number, isChoice: boolean, padId: number, seed: number): (step: number) => Batch {
  const cache = { epoch: -1, batches: [] as Batch[] };
  const epochBatches = (epoch: number): Batch[] => {
    // Shuffled first, so that which examples of one length meet in a batch changes from epoch to epoch.
    const order = shuffled(examples, `${seed}/order/${task}/${epoch}`);
    return shuffled(bucketed(order, batchSize, isChoice, padId), `${seed}/batches/${task}/${epoch}`);
  };
  const perEpoch = epochBatches(0).length;
  return (step) => {
    const epoch = Math.floor(step / perEpoch);
    if (cache.epoch !== epoch) Object.assign(cache, { epoch, batches: epochBatches(epoch) });
    return cache.batches[step % perEpoch]!;
  };
}
