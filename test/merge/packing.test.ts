import { expect, test } from "vitest";
import { magnitudeThreshold } from "../../src/merge/magnitudes.js";
import { packings, packRows, sliceRows, unpackRows } from "../../src/merge/packing.js";

const [rows, width] = [7, 13];
const shape = { rows, width };
const values = Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i * 1.7) * 10 ** ((i % 5) - 3));

test.each(packings)("rows cut out of packed ones are the rows of the whole (%s)", (packing) => {
  const packed = packRows(values, shape, packing);
  const whole = unpackRows(packed, shape);
  for (const runs of [
    [[0, 7]],
    [[2, 5]],
    [
      [0, 1],
      [3, 4],
      [5, 7],
    ],
  ] as [number, number][][]) {
    const count = runs.reduce((n, [from, to]) => n + to - from, 0);
    const expected = runs.flatMap(([from, to]) => Array.from(whole.subarray(from * width, to * width)));
    expect(Array.from(unpackRows(sliceRows(packed, runs, shape), { rows: count, width }))).toEqual(expected);
  }
});

test("each packing loses what it says, and sparse nothing but what it trims", () => {
  const error = (packing: (typeof packings)[number]) => {
    const back = unpackRows(packRows(values, shape, packing), shape);
    return values.map((x, i) => Math.abs(x - back[i]!));
  };
  expect(Math.max(...error("f32"), ...error("sparse"))).toBe(0);
  error("bf16").forEach((e, i) => expect(e).toBeLessThanOrEqual(Math.abs(values[i]!) / 256));
  error("int8").forEach((e, i) => {
    const row = values.subarray(Math.floor(i / width) * width, (Math.floor(i / width) + 1) * width);
    expect(e).toBeLessThanOrEqual((Math.max(...row.map(Math.abs)) / 127) * 0.5001);
  });
});

test("the threshold is the magnitude of the last entry that is kept", () => {
  const sorted = Array.from(values, Math.abs).sort((a, b) => b - a);
  for (const density of [0.01, 0.2, 0.5, 0.99])
    expect(magnitudeThreshold(values, density)).toBe(sorted[Math.ceil(values.length * density) - 1]);
  expect(magnitudeThreshold(values, 1)).toBe(0);
  const ties = Float32Array.from([1, -1, 1, 0, 0, 2]);
  expect(magnitudeThreshold(ties, 0.3)).toBe(1);
  expect(packRows(ties, { rows: 1, width: 6 }, "sparse", 1)).toMatchObject({
    index: Int32Array.from([0, 1, 2, 5]),
  });
});
