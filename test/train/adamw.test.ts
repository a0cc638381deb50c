import { expect, test } from "vitest";
import { adamDefaults, adamW, learningRate, zeroMoments } from "../../src/train/adamw.js";
import type { Table } from "../../src/merge/table.js";
import { golden, relativeError } from "../helpers.js";

const { lr, steps, cases } = golden<{
  lr: number;
  steps: number;
  cases: { weightDecay: number; start: number[]; target: number[]; end: number[] }[];
}>("adamw");

test.each(cases)(
  "equals torch.optim.AdamW after 100 steps, decay $weightDecay",
  ({ weightDecay, start, target, end }) => {
    let raw: Table = { rows: start.length, columns: 1, values: Float64Array.from(start) };
    let moments = zeroMoments(start.length);
    for (let step = 0; step < steps; step++) {
      const values = raw.values.map((w, i) => 2 * (w - target[i]!) * (1 + 0.5 * Math.sin(step)));
      ({ raw, moments } = adamW(raw, { ...raw, values }, moments, lr, { ...adamDefaults, weightDecay }));
    }
    expect(relativeError(raw.values, end)).toBeLessThan(1e-12);
  },
);

test("learning rate: warm-up, then constant or decayed to zero", () => {
  expect(learningRate(0, 100, 1, 10, "none")).toBeCloseTo(0.1);
  expect(learningRate(9, 100, 1, 10, "none")).toBe(1);
  expect(learningRate(50, 100, 1, 0, "none")).toBe(1);
  expect(learningRate(55, 100, 1, 10, "linear")).toBeCloseTo(0.5);
  expect(learningRate(100, 100, 1, 10, "cosine")).toBeCloseTo(0);
  // A quarter of the way a cosine has lost 15 % where a line has lost 25.
  expect(learningRate(25, 100, 2, 0, "cosine")).toBeCloseTo(1 + Math.SQRT1_2, 12);
  expect(learningRate(50, 100, 2, 0, "cosine")).toBeCloseTo(1, 12);
  expect(learningRate(32.5, 100, 2, 10, "cosine")).toBeCloseTo(1 + Math.SQRT1_2, 12);
  expect(learningRate(25, 100, 2, 0, "linear")).toBe(1.5);
});
