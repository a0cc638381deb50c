import { memory } from "@tensorflow/tfjs-core";
import { beforeAll, expect, test } from "vitest";
import { settingsSchema } from "../../src/config/schema.js";
import type { PreparedTask } from "../../src/evaluate/evaluate.js";
import { stepsOfBlocks, trainByBlocks, trainedBlocks } from "../../src/train/blocks.js";
import { initialState, type TrainOptions, type TrainRecord, type TrainState } from "../../src/train/loop.js";
import { startToy, toyExample, toyFamily, toyModel, toyTask, type ToyWeights, toyTraining } from "../toy.js";

/** Block by block, on a model of two blocks that multiply a row of two numbers: first by u, then by v. */
beforeAll(startToy);

const options: TrainOptions = {
  ...toyTraining,
  steps: 4,
  batchSize: 8,
  init: 0.3,
  holdout: 0.5,
  loss: "block-distillation",
};
const experts: Readonly<Record<string, ToyWeights>> = {
  a: { u: [1, 0.5], v: [0.5, -1] },
  b: { u: [-0.5, 1], v: [1, 0.25] },
};
const rows: Readonly<Record<string, readonly (readonly [number, number])[]>> = {
  a: [
    [1, 2],
    [3, -1],
  ],
  b: [[0.5, 1]],
};
const tasks = (names: readonly string[]): PreparedTask[] =>
  names.map((name) => toyTask(name, { validation: rows[name]!.map((ids) => toyExample(ids, 0)) }));

interface Run {
  readonly start?: TrainState;
  readonly stopping?: () => boolean;
  readonly names?: readonly string[];
}

/** Trains; `steps` are those of both blocks. */
async function run(
  changed: Partial<TrainOptions> = {},
  { start, stopping = () => false, names = ["a", "b"] }: Run = {},
) {
  const all = { ...options, ...changed };
  const { dispose, ...place } = await toyFamily(
    Object.fromEntries(names.map((name) => [name, experts[name]!])),
  );
  const records: TrainRecord[] = [];
  const saved: TrainState[] = [];
  const begin = start ?? initialState(place.vectors.layers.length, names.length, all);
  try {
    const before = memory().numTensors;
    const made = await trainByBlocks({ place, teacher: place, tasks: tasks(names), options: all }, begin, {
      record: (record) => void records.push(record),
      save: (state) => Promise.resolve(void saved.push(state)),
      stopping,
    });
    expect(memory().numTensors).toBe(before);
    return { ...made, records, saved };
  } finally {
    dispose();
  }
}

/** Mean squared distance of rows times `w` from rows times `target`. */
const distance = (name: string, w: readonly number[], target: readonly number[]): number => {
  const squares = rows[name]!.flatMap((row) => row.map((x, i) => (x * (w[i]! - target[i]!)) ** 2));
  return squares.reduce((sum, one) => sum + one, 0) / squares.length;
};
/** What a block's vector is for coefficients of the experts. */
const merged = (block: "u" | "v", c: readonly number[]): number[] =>
  [0, 1].map((i) => 1 + c.reduce((sum, one, e) => sum + one * Object.values(experts)[e]![block]![i]!, 0));
const own = (name: string, block: "u" | "v"): number[] => [0, 1].map((i) => 1 + experts[name]![block]![i]!);
const times = (a: readonly number[], b: readonly number[]): number[] => a.map((x, i) => x * b[i]!);

test("of one expert the coefficients become 1, and nothing is left of the loss", async () => {
  const { state, records, finished } = await run({ steps: 800, lr: 0.02 }, { names: ["a"] });
  expect(finished).toBe(true);
  expect([...state.raw.values]).toEqual([expect.closeTo(1, 3), expect.closeTo(1, 3)]);
  expect(records.at(-1)!.loss).toBeLessThan(1e-6);
});

test("a block is held against what each expert's own blocks make of its own inputs", async () => {
  const { records, state, saved } = await run({ steps: 6 });
  const start = merged("u", [0.3, 0.3]);
  expect(records[1]!.losses).toEqual([
    expect.closeTo(distance("a", start, own("a", "u")), 5),
    expect.closeTo(distance("b", start, own("b", "u")), 5),
  ]);
  expect(records[1]!.loss).toBeCloseTo(records[1]!.losses![0]! + records[1]!.losses![1]!, 5);
  // The second block is given what the merged first one makes; its target is made by the expert's own two.
  const cu = Array.from(saved[0]!.raw.values.slice(0, 2));
  const both = times(merged("u", cu), merged("v", [0.3, 0.3]));
  expect(records[4]!.step).toBe(4);
  expect(records[4]!.losses).toEqual([
    expect.closeTo(distance("a", both, times(own("a", "u"), own("a", "v"))), 4),
    expect.closeTo(distance("b", both, times(own("b", "u"), own("b", "v"))), 4),
  ]);
  expect(state.moments.step).toBe(6);
});

test("while a block is trained the coefficients of the others stay, decay or not", async () => {
  const { saved, state } = await run({ steps: 6, weightDecay: 0.5 });
  expect(saved.map(({ moments }) => moments.step)).toEqual([3, 6]);
  expect(saved[0]!.raw.values.slice(2)).toEqual(Float64Array.of(0.3, 0.3));
  expect(saved[0]!.raw.values[0]).not.toBe(0.3);
  expect(state.raw.values.slice(0, 2)).toEqual(saved[0]!.raw.values.slice(0, 2));
  expect(state.raw.values[2]).not.toBe(0.3);
});

test("a stopped training goes on with the block that it stopped in, and comes to the same", async () => {
  const whole = await run({ steps: 6 });
  let asked = 0;
  const stopped = await run({ steps: 6 }, { stopping: () => ++asked === 5 });
  expect(stopped.finished).toBe(false);
  expect(stopped.state.moments.step).toBe(3);
  expect(stopped.saved.at(-1)).toEqual(stopped.state);
  const resumed = await run({ steps: 6 }, { start: stopped.state });
  expect(resumed.records.map(({ step }) => step)).toEqual([4, 5, 6]);
  expect(resumed.state.raw).toEqual(whole.state.raw);
  const done = await run({ steps: 6 }, { start: whole.state });
  expect(done.records).toEqual([]);
});

test("tasks count by their weights; a task of weight 0 moves nothing", async () => {
  const only = await run({ steps: 2, taskWeights: [1, 0] });
  expect(only.records[1]!.losses![1]).toBe(0);
  const doubled = await run({ steps: 2, taskWeights: [2, 1] });
  expect(doubled.records[1]!.losses![0]).toBeCloseTo(2 * only.records[1]!.losses![0]!, 5);
});

test("what nobody changed is not trained, nor an output layer alone", async () => {
  const { dispose, ...place } = await toyFamily({ a: { v: [1, 0] } });
  expect(trainedBlocks(place).map((block) => [...block.rows])).toEqual([[], [0]]);
  expect(stepsOfBlocks(place, { steps: 7 })).toBe(7);
  const output = { weight: "v", predictions: () => ({}) as never };
  const model = toyModel({ output });
  expect(trainedBlocks({ ...place, model }).map((block) => block.rows.size)).toEqual([0, 0]);
  dispose();
});

test("a block's batches are drawn: as many as it has steps, others by another seed", async () => {
  const laidOut = async (seed: number, steps: number) => {
    const seen: number[] = [];
    const plain = toyModel();
    const model = toyModel({
      prepare(some) {
        seen.push(...some.map(({ ids: [first = 0] }) => first));
        return plain.prepare(some);
      },
    });
    const { dispose, ...place } = await toyFamily({ a: { u: [1, 0] } }, { model });
    const examples = Array.from({ length: 12 }, (_, i) => toyExample([i, 1], 0));
    const all = { ...options, steps, seed, batchSize: 1 };
    const hooks = { record() {}, save: () => Promise.resolve(), stopping: () => true };
    const tasks = [toyTask("a", { validation: examples })];
    await trainByBlocks({ place, teacher: place, tasks, options: all }, initialState(1, 1, all), hooks);
    dispose();
    return seen.slice(0, steps);
  };
  const first = await laidOut(0, 5);
  expect(new Set(first).size).toBe(5);
  expect(first).not.toEqual([0, 1, 2, 3, 4]);
  expect(await laidOut(0, 5)).toEqual(first);
  expect(await laidOut(1, 5)).not.toEqual(first);
});

test("rows of one length share a pass; those of another have their own", async () => {
  const seen: number[][] = [];
  const plain = toyModel();
  const model = toyModel({
    prepare(some) {
      seen.push(some.map(({ ids }) => ids.length));
      return plain.prepare(some);
    },
  });
  const { dispose, ...place } = await toyFamily({ a: experts["a"]! }, { model });
  const examples = [
    [1, 2],
    [1, 2, 3],
    [3, 4],
    [5, 6, 7],
    [8, 9],
  ].map((ids) => toyExample(ids, 0));
  const training = { place, teacher: place, tasks: [toyTask("a", { validation: examples })] };
  const all = { ...options, steps: 2 };
  const hooks = { record() {}, save: () => Promise.resolve(), stopping: () => false };
  await trainByBlocks({ ...training, options: all }, initialState(2, 1, all), hooks);
  // What is laid out first is what is trained on.
  expect(seen.slice(0, 2)).toEqual([
    [2, 2, 2],
    [3, 3],
  ]);
  dispose();
});

test.each([
  ["average", 0.9],
  ["shrink", 0.1],
  ["pull", 0.1],
  ["batchesPerStep", 2],
])("%s is refused: it would do nothing", (key, value) => {
  const given = { tasks: ["rte", "cb"], loss: "block-distillation", [key]: value };
  const { error } = settingsSchema.safeParse(given);
  expect(error!.issues.map(({ path }) => path.join("."))).toEqual([key]);
  expect(settingsSchema.safeParse({ ...given, loss: "distillation" }).success).toBe(true);
});
