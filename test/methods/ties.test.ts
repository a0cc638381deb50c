import { expect, test } from "vitest";
import { countMagnitudes, digitOfRank, magnitudeCounts, magnitudeOf } from "../../src/merge/magnitudes.js";
import { signSum, thresholdRank, tiesMean } from "../../src/methods/ties.js";
import { golden, relativeError } from "../helpers.js";

test("trims over all tensors, elects signs and takes the disjoint mean as the authors' code does", () => {
  const g = golden<{ vectors: number[][]; thresholds: number[]; majority: number; merged: number[] }>("ties");
  const vectors = g.vectors.map((values) => Float32Array.from(values));
  // The vector comes in tensors of its own sizes.
  const cuts = [0, 7, 1000, 1001, 2500, 3000];
  const tensors = cuts.slice(1).map((end, i) => vectors.map((values) => values.slice(cuts[i], end)));
  const thresholds = vectors.map((_, expert) => {
    const count = (upper?: number) => {
      const counts = magnitudeCounts(upper);
      for (const deltas of tensors) countMagnitudes(counts, deltas[expert]!);
      return counts;
    };
    const upper = digitOfRank(count(), thresholdRank(3000, 0.2));
    return magnitudeOf(upper.digit, digitOfRank(count(upper.digit), upper.rank).digit);
  });
  expect(thresholds).toEqual(g.thresholds);
  const majority = Math.sign(tensors.reduce((sum, deltas) => sum + signSum(deltas, thresholds), 0));
  expect(majority).toBe(g.majority);
  const merged = tensors.flatMap((deltas) => Array.from(tiesMean(deltas, thresholds, majority)));
  expect(relativeError(merged, g.merged)).toBeLessThan(1e-6);
});
