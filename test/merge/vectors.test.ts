import { memory } from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { startEngine } from "../../src/backend/index.js";
import type { Family, Member } from "../../src/checkpoint/family.js";
import { packings } from "../../src/merge/deltas.js";
import { makeTable } from "../../src/merge/table.js";
import { loadTaskVectors, mergeWeights } from "../../src/merge/vectors.js";

type Tensors = Record<string, number[]>;

const member = (label: string, tensors: Tensors): Member => ({
  label, actual: new Map(), checkpoint: undefined as never,
  weights: async (name) => ({ shape: [tensors[name]!.length], values: Float32Array.from(tensors[name]!) }),
});

const base: Tensors = { a: [1, 2], b: [3, 4, 5], c: [6] };
const family: Family = {
  base: member("base", base),
  experts: [member("x", { ...base, a: [2, 2] }), member("y", { ...base, b: [3, 4, 6] }), member("z", { ...base, a: [1, 3], b: [4, 4, 5] })],
  close: async () => {},
};

beforeAll(async () => {
  await startEngine("cpu");
});

test.each(packings)("what nobody changed has no layer; an expert takes part only in what it changed (%s)", async (packing) => {
  const before = memory().numTensors;
  const vectors = await loadTaskVectors(family, ["a", "b", "c"], "tensor", () => {}, packing);
  expect(vectors.layers.map(({ id }) => id)).toEqual(["a", "b"]);
  expect(vectors.merged.map(({ deltas }) => deltas.experts)).toEqual([[0, 2], [1, 2]]);
  expect(vectors.merged.map(({ deltas }) => deltas.data.shape[0])).toEqual([2, 2]);
  // Coefficients 1, 10, 100: what an expert did not change must not move.
  const merged = mergeWeights(vectors, makeTable(2, 3, (_, column) => 10 ** column));
  const read = async (name: string) => Array.from(await merged.weights(name).data());
  const near = async (name: string, expected: number[]) => (await read(name)).forEach((x, i) => expect(x).toBeCloseTo(expected[i]!, 4));
  await near("a", [1 + 1, 2 + 100]);
  await near("b", [3 + 100, 4, 5 + 10]);
  await near("c", [6]);
  merged.dispose();
  vectors.dispose();
  expect(memory().numTensors).toBe(before);
});
