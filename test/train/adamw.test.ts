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
      ({ raw, moments } = adamW(raw, { ...raw, values }, moments, { ...adamDefaults, weightDecay, lr }));
    }
    expect(relativeError(raw.values, end)).toBeLessThan(1e-12);
  },
);

test("learning rate: warm-up, then constant or decayed to zero", () => {
  expect(learningRate(0, { steps: 100, lr: 1, warmup: 10, decay: "none" })).toBeCloseTo(0.1);
  expect(learningRate(9, { steps: 100, lr: 1, warmup: 10, decay: "none" })).toBe(1);
  expect(learningRate(50, { steps: 100, lr: 1, warmup: 0, decay: "none" })).toBe(1);
  expect(learningRate(55, { steps: 100, lr: 1, warmup: 10, decay: "linear" })).toBeCloseTo(0.5);
  expect(learningRate(100, { steps: 100, lr: 1, warmup: 10, decay: "cosine" })).toBeCloseTo(0);
  // A quarter of the way a cosine has lost 15 % where a line has lost 25.
  expect(learningRate(25, { steps: 100, lr: 2, warmup: 0, decay: "cosine" })).toBeCloseTo(
    1 + Math.SQRT1_2,
    12,
  );
  expect(learningRate(50, { steps: 100, lr: 2, warmup: 0, decay: "cosine" })).toBeCloseTo(1, 12);
  expect(learningRate(32.5, { steps: 100, lr: 2, warmup: 10, decay: "cosine" })).toBeCloseTo(
    1 + Math.SQRT1_2,
    12,
  );
  expect(learningRate(25, { steps: 100, lr: 2, warmup: 0, decay: "linear" })).toBe(1.5);
});
