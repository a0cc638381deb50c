import { at } from "../at.js";
import type { EmbeddingForm } from "../models/embedding.js";
import type { TokenRow } from "../models/types.js";
import { shuffled } from "./split.js";

/**
 * How an example is answered: `classify`, by one of a head's classes; `choose`, by one of several rows that compete;
 * `generate`, by a text that a language model makes; `regress`, by a number; `mark`, by every class that holds
 * (several labels); `tag`, by a class a token; `span`, by a part of a text; `similar`, by how like two texts' vectors
 * are; `match`, by vectors that find a text's partner among all others.
 */
export type AnswerKind =
  | "classify"
  | "choose"
  | "generate"
  | "regress"
  | "mark"
  | "tag"
  | "span"
  | "similar"
  | "match";

interface EncodedBase {
  /** One; for a choice, one an ending; of a text that is read in windows, one a window. */
  readonly rows: readonly TokenRow[];
  /** The right class or row, or the right number; 0 where the kind has none. */
  readonly label: number;
  readonly length: number;
  /** What an expert says of it: a probability a class, decision after decision (tasks/decisions.ts). */
  readonly softLabels?: readonly number[] | undefined;
}

/** An example as rows of tokens. */
export type EncodedExample =
  | (EncodedBase & { readonly kind: "classify" | "choose" | "regress" })
  /** A row a text: two, or a text, its partner and others that are none. */
  | (EncodedBase & { readonly kind: "similar" | "match"; readonly form: EmbeddingForm })
  /** Each of the answers is right. A text is asked for by a row of its own, where its row holds more than a prompt. */
  | (EncodedBase & {
      readonly kind: "generate";
      readonly answers: readonly string[];
      readonly asks?: TokenRow;
    })
  /** Of every label, 1 where it holds. */
  | (EncodedBase & { readonly kind: "mark"; readonly marks: readonly number[] })
  /** Of every token, its class; −1 where it is not asked for (special tokens, a word's further tokens). */
  | (EncodedBase & { readonly kind: "tag"; readonly tags: readonly number[] })
  | (EncodedBase & {
      readonly kind: "span";
      /** The answer's first and last token, a row each; [0, 0] where a row has none. */
      readonly spans: readonly (readonly [first: number, last: number])[];
      /** The tokens that an answer may be of, a row each: from, and to before. */
      readonly within: readonly (readonly [from: number, to: number])[];
      /** Each is right; none where the text does not answer. */
      readonly answers: readonly string[];
      /** What the text says from a row's token to another. */
      text(row: number, first: number, last: number): string;
    });

/** Examples that are answered alike, by as many rows each. */
export interface Batch {
  readonly kind: AnswerKind;
  readonly examples: readonly EncodedExample[];
  /** Those of all examples, one after the other. */
  readonly rows: readonly TokenRow[];
}

export const batchLabels = ({ examples }: Pick<Batch, "examples">): number[] =>
  examples.map(({ label }) => label);

/** How many tokens share one pass: enough that an engine is busy, few enough that the activations stay small. */
export const tokensAPass = 2048;

/** What a row is to say, in one piece or in turns. @throws Error where it is not to say anything */
export function targetsOf({ ids, targets, spans }: TokenRow): readonly number[] {
  if (spans) return spans.flatMap(([from, to]) => ids.slice(from, to));
  if (!targets) throw new Error("a row of a text that is to be said has no targets");
  return targets;
}

/** What a text is generated behind: of answers that compete, the prompt that the right one's row holds too. */
export const promptOf = (example: EncodedExample): TokenRow => {
  if (example.kind === "generate" && example.asks) return example.asks;
  return at(example.rows, example.label);
};

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

/** An example is as long as its longest row, answers that share their text being one. */
export const longestOf = (rows: readonly TokenRow[]): number =>
  Math.max(...rows.map(({ ids }) => rowTokens(...rows.filter((row) => row.ids === ids))));

/** What a class, a row or a number is right for. */
export type LabelKind = "classify" | "choose" | "regress";

/** An example of which a class, one of its rows, or a number is right. */
export const ranked = (
  kind: LabelKind,
  rows: readonly TokenRow[],
  { label }: Pick<EncodedBase, "label">,
): EncodedExample => ({
  kind,
  rows,
  label,
  length: longestOf(rows),
});

/** How many rows of a batch compete in each example; undefined where an example is one row. */
export function choicesOf({ kind, examples }: Batch): number | undefined {
  if (kind === "choose") return at(examples, 0).rows.length;
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
  const groups = groupUpTo(batch.examples, most, ({ rows }) => rowTokens(...rows));
  if (groups.length <= 1) return [batch];
  return groups.map(toBatch);
}

/** One batch of examples that are answered alike, each by as many rows. */
export const toBatch = (examples: readonly EncodedExample[]): Batch => ({
  kind: at(examples, 0).kind,
  examples,
  rows: examples.flatMap(({ rows }) => rows),
});

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
