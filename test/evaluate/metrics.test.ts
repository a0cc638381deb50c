import { expect, test } from "vitest";
import * as metrics from "../../src/evaluate/metrics.js";
import { golden } from "../helpers.js";

type Scores = Readonly<Record<string, number>>;
type Case<T> = { readonly right: T; readonly said: T } & Scores;
interface Cases {
  readonly classes: readonly Case<number[]>[];
  readonly marks: readonly Case<number[][]>[];
  readonly numbers: readonly Case<number[]>[];
  readonly tags: readonly Case<string[][]>[];
  readonly texts: readonly ({ readonly said: string; readonly answers: string[] } & Scores)[];
}
const cases = golden<Cases>("kinds/metrics");

/** Each of some metrics of a case, beside what the reference says. */
function expectScores(given: Scores, mine: Readonly<Record<string, number>>): void {
  const named = Object.keys(mine).filter((name) => given[name] !== undefined);
  expect(named.length).toBeGreaterThan(0);
  for (const name of named) expect(mine[name], name).toBeCloseTo(given[name]!, 10);
}

test("classes are counted as scikit-learn counts them", () => {
  for (const one of cases.classes)
    expectScores(one, {
      accuracy: metrics.accuracy(one.said, one.right),
      f1: metrics.binaryF1(one.said, one.right, 1),
      "f1-of-0": metrics.binaryF1(one.said, one.right, 0),
      "f1-macro": metrics.macroF1(one.said, one.right),
      "f1-micro": metrics.microF1(one.said, one.right),
      matthews: metrics.matthews(one.said, one.right),
    });
});

test("several labels are counted as scikit-learn counts them", () => {
  for (const one of cases.marks)
    expectScores(one, {
      "f1-macro": metrics.macroF1OfMarks(one.said, one.right),
      "f1-micro": metrics.microF1OfMarks(one.said, one.right),
      "exact-match": metrics.exactMarks(one.said, one.right),
    });
});

test("correlations are SciPy's, equal values among them; 0 where one side is constant", () => {
  for (const one of cases.numbers)
    expectScores(one, {
      pearson: metrics.pearson(one.said, one.right),
      spearman: metrics.spearman(one.said, one.right),
    });
  expect(metrics.pearson([1, 1, 1], [1, 2, 3])).toBe(0);
  expect(metrics.spearman([1, 2, 3], [4, 4, 4])).toBe(0);
});

test("entities are found as seqeval finds them", () => {
  for (const one of cases.tags) expectScores(one, { "entity-f1": metrics.entityF1(one.said, one.right) });
  expect(metrics.entityF1([["U-X", "O", "B-X", "L-X"]], [["S-X", "O", "B-X", "E-X"]])).toBe(1);
});

test("texts are compared as SQuAD's script and rouge-score compare them, the best answer counting", () => {
  for (const one of cases.texts)
    expectScores(one, {
      "span-f1": metrics.spanF1(one.said, one.answers),
      "exact-match": metrics.exactMatch(one.said, one.answers),
      rouge1: metrics.rouge(one.said, one.answers, 1),
      rouge2: metrics.rouge(one.said, one.answers, 2),
      rougeL: metrics.rougeL(one.said, one.answers),
    });
});

test("rankings: gains of the first k, the first right one, and whether one is among them", () => {
  const ranks = [[1, 3], [2], [12]];
  const ideal = 1 + 1 / Math.log2(3);
  expect(metrics.ndcg(ranks, 10)).toBeCloseTo(((1 + 1 / 2) / ideal + 1 / Math.log2(3) + 0) / 3, 12);
  expect(metrics.reciprocalRank(ranks, 10)).toBeCloseTo((1 + 1 / 2) / 3, 12);
  expect(metrics.foundWithin(ranks, 1)).toBeCloseTo(1 / 3, 12);
  expect(metrics.foundWithin(ranks, 2)).toBeCloseTo(2 / 3, 12);
});
