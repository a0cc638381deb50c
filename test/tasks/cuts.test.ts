import { expect, test } from "vitest";
import type { TokenRow } from "../../src/models/types.js";
import {
  batchTokens,
  bucketed,
  choicesOf,
  cutBatch,
  batchLabels,
  groupUpTo,
  toBatch,
  trainingBatches,
  type Batch,
  type EncodedExample,
} from "../../src/tasks/batches.js";
import { lossWeight } from "../../src/tasks/decisions.js";
import { labelsOfEach, rowsBatch } from "../../scripts/rows-batch.js";

/** How examples become batches: which stand together, and where a batch is cut. */
const row = (tokens: number, more: Partial<TokenRow> = {}): TokenRow => ({
  ids: Array<number>(tokens).fill(1),
  types: [],
  ...more,
});
/** A batch whose examples have so many tokens each, and are known by their label. */
const batchOf = (tokens: readonly number[]): Batch =>
  rowsBatch(
    "classify",
    tokens.map((count) => row(count)),
    tokens.map((_, i) => i),
  );
const labels = labelsOfEach;
const softOf = ({ examples }: Batch) => examples.map(({ softLabels }) => softLabels);

test("a batch is cut, in order, where an example more would be too many tokens", () => {
  expect(labels(cutBatch(batchOf([4, 4, 4, 4]), 8))).toEqual([
    [0, 1],
    [2, 3],
  ]);
  expect(labels(cutBatch(batchOf([4, 4, 4, 4]), 7))).toEqual([[0], [1], [2], [3]]);
  expect(labels(cutBatch(batchOf([4, 5, 1, 3, 5]), 9))).toEqual([
    [0, 1],
    [2, 3, 4],
  ]);
  expect(labels(cutBatch(batchOf([20, 1, 1, 20, 20]), 9)), "one that is too long alone").toEqual([
    [0],
    [1, 2],
    [3],
    [4],
  ]);
  expect(labels(cutBatch(batchOf([0, 5, 5]), 5)), "one without a token").toEqual([[0, 1], [2]]);
  const parts = cutBatch(batchOf([4, 5, 1]), 9);
  expect(parts.map(({ rows }) => rows.map(({ ids }) => ids.length))).toEqual([[4, 5], [1]]);
});

test("a batch that need not be cut is the batch itself", () => {
  const batch = batchOf([4, 4]);
  expect(cutBatch(batch, 8)).toEqual([batch]);
  expect(cutBatch(batch, 8)[0]).toBe(batch);
  const empty = batchOf([]);
  expect(cutBatch(empty, 8)).toEqual([empty]);
});

test("what belongs to an example goes with it: the rows of a choice, and what an expert says", () => {
  const softLabels = [
    [0.1, 0.9],
    [0.2, 0.8],
    [0.3, 0.7],
  ];
  const { rows: all } = batchOf([1, 2, 3, 4, 5, 6]);
  const plain = rowsBatch("choose", all, [7, 8, 9]);
  const choice = toBatch(plain.examples.map((one, i) => ({ ...one, softLabels: softLabels[i] })));
  const parts = cutBatch(choice, 10);
  expect(
    parts.map((part) => ({
      tokens: part.rows.map(({ ids }) => ids.length),
      of: batchLabels(part),
      choices: choicesOf(part),
      soft: softOf(part),
    })),
  ).toEqual([
    { tokens: [1, 2, 3, 4], of: [7, 8], choices: 2, soft: softLabels.slice(0, 2) },
    { tokens: [5, 6], of: [9], choices: 2, soft: softLabels.slice(2) },
  ]);
});

test("rows that share their text cost it once, where a batch is cut too", () => {
  const ids = [1, 2, 3, 4];
  const shared = rowsBatch(
    "choose",
    [5, 6, 7, 8].map((target) => ({ ids, types: [], targets: [target] })),
    [0, 1],
  );
  expect(batchTokens(shared)).toBe(4 + 4);
  expect(cutBatch(shared, 12)).toEqual([shared]);
  expect(labels(cutBatch(shared, 11))).toEqual([[0], [1]]);
});

test("items are grouped in order: what is just within the most is, and what is over it stands alone", () => {
  const of = (costs: readonly number[]) => groupUpTo(costs, 10, (cost) => cost);
  expect(of([4, 6, 1, 9, 5])).toEqual([[4, 6], [1, 9], [5]]);
  expect(of([5, 6, 5])).toEqual([[5], [6], [5]]);
  expect(of([11, 0, 10, 12])).toEqual([[11], [0, 10], [12]]);
  expect(of([])).toEqual([]);
});

test("a mean is over examples; where texts are to be said, over their tokens", () => {
  const rows = [row(3, { targets: [1, 2] }), row(3, { targets: [1] })];
  expect(lossWeight(rowsBatch("generate", rows, [0, 0]))).toBe(3);
  expect(lossWeight(rowsBatch("choose", rows, [0]))).toBe(1);
  expect(lossWeight(batchOf([3, 3, 3]))).toBe(3);
  const wordless = () => lossWeight(rowsBatch("generate", [row(3)], [0]));
  expect(wordless).toThrow("a row of a text that is to be said has no targets");
});

const example = (
  length: number,
  label: number,
  more: Partial<Pick<EncodedExample, "softLabels">> = {},
): EncodedExample => ({ kind: "classify", rows: [row(length)], label, length, ...more });
const choiceOf = (rows: number, length: number, label: number): EncodedExample => ({
  kind: "choose",
  rows: Array.from({ length: rows }, () => row(length)),
  label,
  length,
});

test("examples of like length stand together, the shortest first, in their order where they are as long", () => {
  const of = (lengths: readonly number[], size: number) => {
    const examples = lengths.map((length, i) => example(length, i));
    return labels(bucketed(examples, size));
  };
  expect(of([5, 3, 9, 3, 1], 2)).toEqual([[4, 1], [3, 0], [2]]);
  expect(of([3, 3, 3], 3)).toEqual([[0, 1, 2]]);
  expect(of([], 2)).toEqual([]);
  const given = [example(2, 0), example(1, 1)];
  bucketed(given, 2);
  const after = given.map(({ label }) => label);
  expect(after, "what was given stays as it was").toEqual([0, 1]);
});

test("a batch of a choice has one number of rows an example, the fewest first whatever their length", () => {
  const examples = [choiceOf(3, 1, 0), choiceOf(2, 9, 1), choiceOf(2, 4, 2), choiceOf(3, 2, 3)];
  expect(
    bucketed(examples, 8).map((batch) => ({
      kind: batch.kind,
      of: batchLabels(batch),
      choices: choicesOf(batch),
      rows: batch.rows.length,
    })),
  ).toEqual([
    { kind: "choose", of: [2, 1], choices: 2, rows: 4 },
    { kind: "choose", of: [0, 3], choices: 3, rows: 6 },
  ]);
});

test("a batch is answered as its examples are, and only the rows of a choice compete", () => {
  const said: EncodedExample = { kind: "generate", rows: [row(2)], label: 0, length: 2, answers: ["yes"] };
  for (const one of [said, example(2, 0)]) {
    const [batch] = bucketed([one], 8);
    expect(batch!.kind).toBe(one.kind);
    expect(choicesOf(batch!)).toBeUndefined();
  }
});

test("what an expert says of examples stands in their order, and nowhere where nobody was asked", () => {
  const asked = [example(5, 0, { softLabels: [1, 0] }), example(3, 1, { softLabels: [0, 1] })];
  expect(softOf(bucketed(asked, 2)[0]!)).toEqual([
    [0, 1],
    [1, 0],
  ]);
  expect(softOf(bucketed([example(5, 0)], 2)[0]!)).toEqual([undefined]);
});

test("an epoch's batches are made once: the same step gives the same batch", () => {
  const supply = () =>
    trainingBatches(
      "t",
      [1, 2, 3, 4].map((length, i) => example(length, i)),
      2,
      0,
    );
  const next = supply();
  expect(next(0)).toBe(next(0));
  expect(next(1)).not.toBe(next(0));
  expect(next(3)).toBe(next(3));
  expect(batchLabels(next(2))).toEqual(batchLabels(supply()(2)));
});
