import { expect, test } from "vitest";
import { startEngine } from "../../src/backend/index.js";
import { cutSegments, layout, windowBias } from "../../src/models/layout.js";

const row = (length: number, id: number) => ({
  ids: Array<number>(length).fill(id),
  types: Array<number>(length).fill(id % 2),
});

/** The cost of every way to cut, tried out. */
function cheapest(lengths: number[], perSegment: number): number {
  if (lengths.length === 0) return 0;
  return Math.min(
    ...lengths.map((length, i) => perSegment + (i + 1) * length + cheapest(lengths.slice(i + 1), perSegment)),
  );
}

test("the cuts cost no more than any other", () => {
  const lengths = [3, 3, 4, 9, 10, 10, 31, 33];
  for (const perSegment of [0, 5, 20, 1000]) {
    const ends = cutSegments(lengths, perSegment);
    const cost = ends.reduce(
      (sum, end, s) => sum + perSegment + (end - (ends[s - 1] ?? 0)) * lengths[end - 1]!,
      0,
    );
    expect(cost).toBe(cheapest(lengths, perSegment));
  }
  expect(cutSegments(lengths, 1e9)).toEqual([8]);
  expect(cutSegments([5, 5, 7], 0.1)).toEqual([2, 3]);
});

test("rows lie in segments of like length; `first` finds each where it was given", () => {
  const rows = [row(5, 10), row(2, 11), row(5, 12), row(3, 13)];
  // So wide a model that a padded token costs more than a segment.
  const { segments, ids, types, positions, first } = layout(rows, 0, 4000);
  expect(segments.map(({ size, length }) => [size, length])).toEqual([
    [1, 2],
    [1, 3],
    [2, 5],
  ]);
  expect(segments.every(({ mask }) => mask === undefined)).toBe(true);
  expect(first.length).toBe(4);
  rows.forEach(({ ids: expected }, r) =>
    expect([...ids.subarray(first[r], first[r]! + expected.length)]).toEqual(expected),
  );
  expect([...positions.subarray(first[2], first[2]! + 5)]).toEqual([0, 1, 2, 3, 4]);
  expect(types[first[1]!]).toBe(1);
});

test("a narrow model pads rather than cuts, and the mask says where", () => {
  const { segments, ids } = layout([row(3, 7), row(1, 8)], 9, 16);
  expect(segments).toEqual([{ size: 2, length: 3, mask: Uint8Array.from([1, 0, 0, 1, 1, 1]) }]);
  expect([...ids]).toEqual([8, 9, 9, 7, 7, 7]);
});

test("a window to either side hides what is farther away, and padding but from itself", async () => {
  await startEngine("cpu");
  const mask = Uint8Array.from([1, 1, 1, 1, 1, 1, 0, 0]);
  const { bias } = windowBias({ size: 2, length: 4, mask }, 1);
  expect(bias!.shape).toEqual([2, 1, 4, 4]);
  const seen = [...(await bias!.data())].map((value) => Number(value === 0));
  expect([seen.slice(0, 16), seen.slice(16)]).toEqual([
    [1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 1],
    [1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1],
  ]);
  bias!.dispose();
  // A window that reaches everything is none.
  expect(windowBias({ size: 1, length: 4, mask: undefined }, 3).bias).toBeUndefined();
});
