import { at } from "../at.js";
import type { TokenRow } from "../models/types.js";
import { shuffled } from "./split.js";

/**
 * How an example is answered: `classify`, by one of a head's classes; `choose`, by one of several rows that compete;
 * `generate`, by a text that a language model makes.
 */
export type AnswerKind = "classify" | "choose" | "generate";

interface EncodedBase {
  /** One, or one an ending for a choice. */
  readonly rows: readonly TokenRow[];
  /** The right class or row; 0 where a text is made. */
  readonly label: number;
  readonly length: number;
  /** What an expert says of it: a probability a class or choice. */
  readonly softLabels?: readonly number[] | undefined;
}

/** An example as rows of tokens. */
export type EncodedExample =
  | (EncodedBase & { readonly kind: "classify" | "choose" })
  /** Each of the answers is right. */
  | (EncodedBase & { readonly kind: "generate"; readonly answers: readonly string[] });

interface BatchBase {
  readonly rows: readonly TokenRow[];
  readonly labels: readonly number[];
  /** Of every example, where its expert was asked (see {@link EncodedExample}). */
  readonly softLabels?: readonly (readonly number[])[] | undefined;
}

/** Examples that are answered alike. */
export type Batch =
  | (BatchBase & { readonly kind: "classify" | "generate" })
  /** With how many rows an example has. */
  | (BatchBase & { readonly kind: "choose"; readonly choices: number });

/** How many tokens share one pass: enough that an engine is busy, few enough that the activations stay small. */
export const tokensAPass = 2048;

/** What a row is to say. @throws Error where it says nothing */
export function targetsOf({ targets }: TokenRow): readonly number[] {
  if (!targets) throw new Error("a row of a text that is to be said has no targets");
  return targets;
}

/** What the mean of a batch's loss is over: its examples, or, where texts are to be said, their tokens. */
export function lossWeight({ kind, rows, labels }: Batch): number {
  if (kind !== "generate") return labels.length;
  return rows.reduce((sum, row) => sum + targetsOf(row).length, 0);
}

/** Tokens that rows cost: a text that one row has and the next has too, the same array, is read once. */
export function rowTokens(...rows: readonly TokenRow[]): number {
  let total = 0;
  let before: readonly number[] | undefined;
  for (const { ids, targets = [] } of rows) {
    if (ids !== before) total += ids.length;
    total += targets.length;
    before = ids;
  }
  return total;
}

/** How many rows of a batch compete in each example; undefined where an example is one row. */
export function choicesOf(batch: Batch): number | undefined {
  if (batch.kind === "choose") return batch.choices;
  return undefined;
}

export const batchTokens = ({ rows }: Batch): number => rowTokens(...rows);

/** Groups items, in order, so that no group costs more than `most` if it has more than one. */
export function groupUpTo<T>(items: readonly T[], most: number, costOf: (item: T) => number): T[][] {
  const groups: T[][] = [];
  let group: T[] = [];
  let total = 0;
  for (const item of items) {
    const cost = costOf(item);
    total += cost;
    if (group.length === 0 || total > most) {
      group = [];
      groups.push(group);
      total = cost;
    }
    group.push(item);
  }
  return groups;
}

/** Cuts a batch, in order, into batches of at most `most` tokens (at least an example each). */
export function cutBatch(batch: Batch, most: number): Batch[] {
  const each = choicesOf(batch) ?? 1;
  const rowsOf = (from: number, to: number) => batch.rows.slice(from * each, to * each);
  const groups = groupUpTo([...batch.labels.keys()], most, (e) => rowTokens(...rowsOf(e, e + 1)));
  if (groups.length <= 1) return [batch];
  return groups.map((group) => {
    const [from, to] = [at(group, 0), at(group, -1) + 1];
    return {
      ...batch,
      rows: rowsOf(from, to),
      labels: batch.labels.slice(from, to),
      softLabels: batch.softLabels?.slice(from, to),
    };
  });
}

/** One batch of examples that are answered alike, each by as many rows. */
export function toBatch(examples: readonly EncodedExample[]): Batch {
  const { kind, rows: ofFirst } = at(examples, 0);
  const softLabels = examples.map((example) => example.softLabels).filter((one) => one !== undefined);
  const batch = {
    rows: examples.flatMap(({ rows }) => rows),
    labels: examples.map(({ label }) => label),
    ...(softLabels.length > 0 && { softLabels }),
  };
  if (kind === "choose") return { ...batch, kind, choices: ofFirst.length };
  return { ...batch, kind };
}

/** Cuts examples, sorted by length, into batches that hold one number of rows an example. */
export function bucketed(examples: readonly EncodedExample[], batchSize: number): Batch[] {
  const sorted = [...examples].sort((a, b) => a.rows.length - b.rows.length || a.length - b.length);
  const groups: EncodedExample[][] = [];
  for (const example of sorted) {
    const last = groups.at(-1);
    if (last && last.length < batchSize && last[0]?.rows.length === example.rows.length) last.push(example);
    else groups.push([example]);
  }
  return groups.map(toBatch);
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
  seed: number,
): (step: number) => Batch {
  const epochBatches = (epoch: number): Batch[] => {
    // Shuffled first, so that which examples of one length meet in a batch changes from epoch to epoch.
    const order = shuffled(examples, `${seed}/order/${task}/${epoch}`);
    return shuffled(bucketed(order, batchSize), `${seed}/batches/${task}/${epoch}`);
  };
  let made = { epoch: 0, batches: epochBatches(0) };
  const perEpoch = made.batches.length;
  return (step) => {
    const epoch = Math.floor(step / perEpoch);
    if (made.epoch !== epoch) made = { epoch, batches: epochBatches(epoch) };
    return at(made.batches, step % perEpoch);
  };
}
