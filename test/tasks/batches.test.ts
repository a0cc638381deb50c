import { expect, test } from "vitest";
import { batchLabels, trainingBatches, type Batch } from "../../src/tasks/batches.js";

/** Examples that are known by their label, of these lengths. */
const examples = (lengths: readonly number[]) =>
  lengths.map((length, label) => ({
    kind: "classify" as const,
    rows: [{ ids: Array<number>(length).fill(1), types: [] }],
    label,
    length,
  }));

const labelsFrom = (next: (step: number) => Batch, from: number, count: number): number[][] =>
  Array.from({ length: count }, (_, i) => batchLabels(next(from + i)));

test("an epoch has every example once", () => {
  const next = trainingBatches("a", examples([3, 3, 3, 3, 3, 3, 3]), 2, 0);
  for (const epoch of [0, 1, 2])
    expect(
      labelsFrom(next, 4 * epoch, 4)
        .flat()
        .sort((a, b) => a - b),
    ).toEqual([0, 1, 2, 3, 4, 5, 6]);
});

test("which examples of one length meet in a batch changes from epoch to epoch", () => {
  const next = trainingBatches("a", examples(Array<number>(16).fill(3)), 2, 0);
  const pairs = (epoch: number) =>
    new Set(labelsFrom(next, 8 * epoch, 8).map((labels) => [...labels].sort((a, b) => a - b).join()));
  expect(pairs(1)).not.toEqual(pairs(0));
});

test("the order of batches changes from epoch to epoch, where their members cannot", () => {
  // Of different lengths: sorted, the same two always stand side by side.
  const next = trainingBatches("a", examples(Array.from({ length: 16 }, (_, i) => i + 1)), 2, 0);
  const [first, second] = [0, 1].map((epoch) =>
    labelsFrom(next, 8 * epoch, 8).map((labels) => [...labels].sort((a, b) => a - b)),
  );
  expect(second).not.toEqual(first);
  expect([...second!].sort((a, b) => a[0]! - b[0]!)).toEqual([...first!].sort((a, b) => a[0]! - b[0]!));
});

test("batch n is a function of n, the task and the seed", () => {
  const all = examples(Array<number>(12).fill(3));
  const batches = (task: string, seed: number) => labelsFrom(trainingBatches(task, all, 3, seed), 0, 8);
  expect(batches("a", 0)).toEqual(batches("a", 0));
  expect(batches("a", 1)).not.toEqual(batches("a", 0));
  expect(batches("b", 0)).not.toEqual(batches("a", 0));
  const next = trainingBatches("a", all, 3, 0);
  const late = batchLabels(next(7));
  next(0);
  expect(batchLabels(next(7))).toEqual(late);
  expect(batchLabels(trainingBatches("a", all, 3, 0)(7))).toEqual(late);
});
