import { expect, test } from "vitest";
import { search, type Embedded } from "../../src/evaluate/vectors.js";
import type { EncodedExample } from "../../src/tasks/batches.js";

const form = { pooling: "mean", dense: [] } as const;

/** Texts are single tokens; a vector is a point of the circle, by its angle in degrees. */
const example = (...texts: [id: number, angle: number][]): Embedded => {
  const rows = texts.map(([id]) => ({ ids: [id], types: [] }));
  const made: EncodedExample = { kind: "match", rows, label: 0, length: 1, form };
  const vectors = texts.map(([, angle]) => {
    const turn = (angle * Math.PI) / 180;
    return Float32Array.of(Math.cos(turn), Math.sin(turn));
  });
  return { example: made, vectors };
};

const ranks = (...all: Embedded[]) => search(all).found.map(({ answer }) => answer);

test("a text's partner is looked for among the partners and the others of all", () => {
  // The nearest to 0° is the second's other text, then the first's partner.
  expect(ranks(example([1, 0], [2, 20]), example([3, 90], [4, 80], [5, 10]))).toEqual([[2], [1]]);
});

test("a text with several partners is looked for once, and all of them are right", () => {
  expect(ranks(example([1, 0], [2, 30]), example([1, 0], [3, 10]), example([4, 90], [5, 20]))).toEqual([
    [1, 3],
    [],
    [2],
  ]);
});

test("texts that two examples share are one", () => {
  expect(ranks(example([1, 0], [2, 10]), example([3, 90], [2, 10]))).toEqual([[1], [1]]);
});

test("texts that are alike to the last bit have ranks of their own", () => {
  expect(ranks(example([1, 0], [2, 10]), example([1, 0], [3, 10]))).toEqual([[1, 2], []]);
});

test("what is lost is the contrast to all texts", () => {
  const { loss } = search([example([1, 0], [2, 0]), example([3, 180], [4, 180])]);
  expect(loss).toBeCloseTo(2 * Math.log(1 + Math.exp(-40)), 6);
});
