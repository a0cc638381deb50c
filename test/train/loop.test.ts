import { beforeAll, expect, test } from "vitest";
import type { MergeContext } from "../../src/evaluate/baselines.js";
import type { PreparedTask } from "../../src/evaluate/evaluate.js";
import type { TokenRow } from "../../src/models/types.js";
import {
  chosenRaw,
  chosenStep,
  chosenText,
  initialState,
  train,
  type ModelOptions,
  type TrainRecord,
  type TrainState,
} from "../../src/train/loop.js";
import { startToy, toyExample, toyFamily, toyModel, toyTask, type ToyWeights, toyTraining } from "../toy.js";

/** What training decides, on a model of two coefficients: `a` raises the first logit, `b` the second. */
beforeAll(startToy);

const experts: Readonly<Record<string, ToyWeights>> = { a: { u: [1, 0] }, b: { u: [0, 1] } };
const options: ModelOptions = toyTraining;
/** A higher coefficient of `a` makes this one's loss lower: its class is the first. */
const helped = toyExample([1, 0], 0);
/** …and this one's higher. */
const hurt = toyExample([1, 0], 1);

interface Run {
  readonly start?: (fresh: TrainState) => TrainState;
  readonly stopping?: () => boolean;
  readonly place?: Partial<MergeContext>;
}

/** Trains, and writes down what was recorded and saved, and the rows that were seen between two records. */
async function run(
  tasks: readonly PreparedTask[],
  changed: Partial<ModelOptions> = {},
  { start = (fresh) => fresh, stopping = () => false, place }: Run = {},
) {
  const all = { ...options, ...changed };
  const seen: TokenRow[][] = [[]];
  const plain = toyModel();
  const model = toyModel({
    prepare(rows) {
      seen.at(-1)!.push(...rows);
      return plain.prepare(rows);
    },
  });
  const { vectors, dispose } = await toyFamily(experts, { model });
  const records: TrainRecord[] = [];
  const saved: TrainState[] = [];
  const result = await train(
    { place: { model, vectors, ...place }, tasks, options: all },
    start(initialState(vectors.layers.length, 2, all)),
    {
      record(record) {
        records.push(record);
        seen.push([]);
      },
      save: async (state) => void saved.push(state),
      stopping,
    },
  );
  dispose();
  return { ...result, records, saved, seen, all };
}

/** What an example loses at the coefficients of the start, where the right class's logit is that of a or of b. */
const lossOf = (right: number, wrong: number) => Math.log(1 + Math.exp(wrong - right));
/** So many examples that are known by the length of their row. */
const numbered = (count: number) =>
  Array.from({ length: count }, (_, i) => toyExample([1, ...Array<number>(i + 1).fill(0)], 0));
const numbersOf = (rows: readonly TokenRow[]) =>
  [...new Set(rows.map(({ ids }) => ids.length - 2))].sort((a, b) => a - b);

test.each([
  { count: 4, holdout: 0.25, held: [0], what: "a quarter" },
  { count: 4, holdout: 0.5, held: [0, 1], what: "half" },
  { count: 4, holdout: 0.4, held: [0, 1], what: "the nearest whole number above" },
  { count: 4, holdout: 0.3, held: [0], what: "the nearest whole number below" },
  { count: 3, holdout: 0.99, held: [0, 1], what: "all but the one that is trained on" },
])(
  "of $count examples and a holdout of $holdout, $what are held out, and never trained on",
  async ({ count, holdout, held }) => {
    const { seen } = await run([toyTask("t", { validation: numbered(count) })], {
      holdout,
      evalEvery: 100,
      steps: 5,
    });
    const fit = numbersOf(numbered(count).map(({ rows: [row] }) => row!)).filter((n) => !held.includes(n));
    expect(numbersOf(seen[0]!), "scored before the first step").toEqual(held);
    expect(numbersOf(seen.slice(1, 5).flat()), "trained on").toEqual(fit);
    // What the last step trains on and is scored by stands before its record.
    expect(numbersOf(seen[5]!.slice(1)), "scored after the last step").toEqual(held);
  },
);

test.each([
  { count: 4, holdout: 0 },
  { count: 4, holdout: 0.1 },
  { count: 1, holdout: 0.9 },
])(
  "of $count examples and a holdout of $holdout, all are trained on, and choose",
  async ({ count, holdout }) => {
    const { seen } = await run([toyTask("t", { validation: numbered(count) })], {
      holdout,
      evalEvery: 100,
      steps: 5,
    });
    const all = Array.from({ length: count }, (_, i) => i);
    expect(numbersOf(seen[0]!)).toEqual(all);
    expect(numbersOf(seen.slice(1, 5).flat())).toEqual(all);
  },
);

test("the step with the lowest loss on the examples held out is kept: the last, where it falls", async () => {
  const { state, records, all } = await run([toyTask("t", { validation: [helped, helped] })], {
    holdout: 0.5,
  });
  const losses = records.map(({ validation }) => validation!.loss);
  expect(losses).toEqual([...losses].sort((a, b) => b - a));
  expect(state.best).toMatchObject({ step: 3, loss: losses[3] });
  expect(chosenRaw(state, all)).toBe(state.best!.raw);
  expect(state.best!.raw.values).toEqual(state.raw.values);
});

test("…the first, where it rises, although the loss that is trained on falls", async () => {
  const { state, records, all } = await run([toyTask("t", { validation: [hurt, helped] })], {
    holdout: 0.5,
  });
  expect(records.map(({ loss }) => loss).slice(1)).toEqual(
    records
      .map(({ loss }) => loss)
      .slice(1)
      .sort((a, b) => b! - a!),
  );
  expect(state.best!.step).toBe(0);
  expect([...chosenRaw(state, all).values]).toEqual([0.5, 0.5]);
  expect(state.raw.values[0]).toBeGreaterThan(0.7);
});

test("…and the earliest, where none is lower than another", async () => {
  const { state } = await run([toyTask("t", { validation: [helped] })], { lr: 0 });
  expect(state.best!.step).toBe(0);
});

test("a loss without labels trains on all examples, chooses by none, and the last table is the result", async () => {
  const { seen, state, all, records } = await run([toyTask("t", { validation: numbered(4) })], {
    loss: "entropy",
    holdout: 0.5,
    evalEvery: 100,
    steps: 5,
  });
  expect(numbersOf(seen[0]!)).toEqual([0, 1, 2, 3]);
  expect(numbersOf(seen.slice(1, 5).flat())).toEqual([0, 1, 2, 3]);
  expect(chosenRaw(state, all)).toBe(state.raw);
  // Of two logits 1.5 and 0: the entropy, which no label is in.
  const p = 1 / (1 + Math.exp(-1.5));
  expect(records[1]!.loss).toBeCloseTo(-p * Math.log(p) - (1 - p) * Math.log(1 - p), 5);
});

test("what was never scored has no best step: the last table is the result", () => {
  const state = initialState(1, 2, options);
  expect(chosenRaw(state, options)).toBe(state.raw);
});

test("it trains on test inputs only where it was told to", async () => {
  const examples = numbered(4);
  const tasks = [toyTask("t", { validation: examples.slice(0, 2), test: examples.slice(2) })];
  const trainedOn = async (adaptOn: ModelOptions["adaptOn"]) => {
    const { seen } = await run(tasks, { loss: "entropy", evalEvery: 100, adaptOn });
    return numbersOf(seen.slice(1, 3).flat());
  };
  expect(await trainedOn("test")).toEqual([2, 3]);
  expect(await trainedOn("validation")).toEqual([0, 1]);
});

test("a start: every entry such that the gate makes it the coefficient asked for", () => {
  const { raw, moments } = initialState(2, 3, { ...options, gate: "tanh", init: 0.3 });
  expect([raw.rows, raw.columns]).toEqual([2, 3]);
  expect([...raw.values].map(Math.tanh).every((value) => Math.abs(value - 0.3) < 1e-12)).toBe(true);
  expect(raw.values).toHaveLength(6);
  expect(moments).toEqual({ first: new Float64Array(6), second: new Float64Array(6), step: 0 });
});

test("a task's weight counts in the loss, in choosing, and in the direction of a step", async () => {
  const tasks = [
    toyTask("one", { validation: [helped] }),
    toyTask("two", { validation: [toyExample([0, 1], 0)] }),
  ];
  const [one, two] = [lossOf(1.5, 0), lossOf(0, 1.5)];
  const even = await run(tasks, { steps: 1 });
  expect(even.records[1]!.losses).toEqual([expect.closeTo(one, 5), expect.closeTo(two, 5)]);
  expect(even.records[1]!.loss).toBeCloseTo(one + two, 5);
  expect(even.records[0]!.validation!.loss).toBeCloseTo(one + two, 5);
  const uneven = await run(tasks, { steps: 1, taskWeights: [3, 0] });
  expect(uneven.records[1]!.losses).toEqual([expect.closeTo(3 * one, 5), expect.closeTo(0, 5)]);
  expect(uneven.records[1]!.loss).toBeCloseTo(3 * one, 5);
  expect(uneven.records[0]!.validation!.loss).toBeCloseTo(3 * one, 5);
  // The second task alone pulls at b, and has no weight.
  expect(uneven.state.raw.values[1]).toBe(0.5);
  expect(even.state.raw.values[1]).toBeLessThan(0.5);
  expect(even.state.raw.values[0]).toBeGreaterThan(0.5);
});

test("accuracies stand task by task", async () => {
  const { records } = await run(
    [toyTask("right", { validation: [helped] }), toyTask("wrong", { validation: [hurt] })],
    { steps: 1 },
  );
  expect(records[0]!.validation!.accuracy).toEqual([1, 0]);
});

test("several batches a step follow each other, and a task's loss is their sum", async () => {
  // Each example is known by what it loses.
  const examples = [1, 2, 3].map((x) => toyExample([x, 0], 0));
  const losses = [1, 2, 3].map((x) => lossOf(1.5 * x, 0));
  const total = losses.reduce((a, b) => a + b);
  const tasks = [toyTask("t", { validation: examples }), toyTask("other", { validation: [helped] })];
  const three = await run(tasks, { lr: 0, batchesPerStep: 3 });
  for (const { losses: of } of three.records.slice(1))
    expect(of, "an epoch a step").toEqual([expect.closeTo(total, 5), expect.closeTo(3 * lossOf(1.5, 0), 5)]);
  const one = await run(tasks, { lr: 0 });
  const each = one.records.slice(1).map(({ losses: of }) => of![0]!);
  expect([...each].sort((a, b) => b - a)).toEqual(losses.map((loss) => expect.closeTo(loss, 5)));
  // Two a step are batches 0 and 1, 2 and 3, …: the first step's, those of the first two steps before.
  const two = await run(tasks, { lr: 0, batchesPerStep: 2, steps: 2 });
  expect(two.records[1]!.losses![0]).toBeCloseTo(each[0]! + each[1]!, 5);
  expect(two.records[2]!.losses![0]).not.toBeCloseTo(each[0]! + each[1]!, 3);
});

test("decay pulls at a coefficient that no loss pulls at, and a gate that is closed lets nothing through", async () => {
  const tasks = [toyTask("t", { validation: [helped] })];
  const { state } = await run(tasks, { taskWeights: [0], weightDecay: 0.5, steps: 1 });
  expect([...state.raw.values]).toEqual([0.5 * (1 - 0.1 * 0.5), 0.5 * (1 - 0.1 * 0.5)]);
  const outside = (fresh: TrainState): TrainState => ({
    ...fresh,
    raw: { ...fresh.raw, values: Float64Array.of(2, 0.5) },
  });
  const dead = await run(tasks, { gate: "clamp" }, { start: outside });
  expect([...dead.state.raw.values]).toEqual([2, 0.5]);
  expect(dead.records[0]!.coefficients, "shown as the model has them").toEqual([1, 0.5]);
});

test("what pulls coefficients: to the start by the distance, to 0 by their signs; both are in the loss", async () => {
  const tasks = [toyTask("t", { validation: [helped] })];
  const start = (fresh: TrainState): TrainState => ({
    ...fresh,
    raw: { ...fresh.raw, values: Float64Array.of(0.8, -0.2) },
  });
  const quiet = { taskWeights: [0], steps: 1, lr: 1e-3 };
  const shrunk = await run(tasks, { ...quiet, shrink: 0.3 }, { start });
  // A step of Adam goes by the gradient's sign.
  expect([...shrunk.state.raw.values]).toEqual([expect.closeTo(0.799, 6), expect.closeTo(-0.199, 6)]);
  const plain = await run(tasks, quiet, { start });
  expect([...plain.state.raw.values]).toEqual([0.8, -0.2]);
  expect(shrunk.records[1]!.loss! - plain.records[1]!.loss!).toBeCloseTo(0.3 * (0.8 + 0.2), 6);
  const held = await run(tasks, { ...quiet, pull: 0.3 }, { start });
  expect([...held.state.raw.values]).toEqual([expect.closeTo(0.799, 6), expect.closeTo(-0.199, 6)]);
  expect(held.records[1]!.loss! - plain.records[1]!.loss!).toBeCloseTo(0.15 * (0.3 ** 2 + 0.7 ** 2), 6);
});

test("a running mean of the tables is what is scored and kept, and goes on after a stop", async () => {
  const tasks = [toyTask("t", { validation: [helped] })];
  const plain = await run(tasks, { steps: 4, saveEvery: 1 });
  const averaged = await run(tasks, { steps: 4, average: 0.5, saveEvery: 1 });
  // What is trained is the same.
  expect(averaged.state.raw).toEqual(plain.state.raw);
  const means = plain.saved.map(({ raw }) => raw.values[0]!);
  let mean = 0.5;
  for (const value of means) mean = 0.5 * mean + 0.5 * value;
  expect(averaged.state.mean!.values[0]).toBeCloseTo(mean, 12);
  expect(averaged.records[4]!.coefficients![0]).toBeCloseTo(mean, 4);
  expect(chosenRaw(averaged.state, options)).toEqual(averaged.state.mean);
  expect(chosenRaw(averaged.state, { loss: "entropy" })).toEqual(averaged.state.mean);
  expect(averaged.records[4]!.validation!.loss).toBeGreaterThan(plain.records[4]!.validation!.loss);
  const half = averaged.saved[1]!;
  const resumed = await run(tasks, { steps: 4, average: 0.5 }, { start: () => half });
  expect(resumed.state).toEqual(averaged.state);
  expect(plain.state.mean).toBeUndefined();
});

test("a record: the step's rate and losses; scores and coefficients, to four places, where it is scored", async () => {
  const { records } = await run([toyTask("t", { validation: [helped] })], {
    steps: 5,
    evalEvery: 2,
    init: 0.123456,
    warmup: 2,
    decay: "linear",
    lr: 0.3,
  });
  expect(records.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(records.map((record) => Object.keys(record).join())).toEqual([
    "step,validation,coefficients",
    "step,lr,loss,losses",
    "step,lr,loss,losses,validation,coefficients",
    "step,lr,loss,losses",
    "step,lr,loss,losses,validation,coefficients",
    // After the last step it is scored in any case.
    "step,lr,loss,losses,validation,coefficients",
  ]);
  expect(records[0]!.coefficients).toEqual([0.1235, 0.1235]);
  const rates = [0.15, 0.3, 0.3, 0.2, 0.1].map((rate) => expect.closeTo(rate, 12));
  expect(records.slice(1).map(({ lr }) => lr)).toEqual(rates);
});

test("the state is saved every so many steps and after the last, with the best so far", async () => {
  const { saved } = await run([toyTask("t", { validation: [helped] })], { steps: 5, saveEvery: 2 });
  expect(saved.map(({ moments }) => moments.step)).toEqual([2, 4, 5]);
  expect(saved.map(({ best }) => best!.step)).toEqual([2, 4, 5]);
});

test("who is asked to stop saves and stops; after the last step nobody is asked", async () => {
  const tasks = [toyTask("t", { validation: [helped] })];
  let asked = 0;
  const stopping = () => ++asked === 2;
  const stopped = await run(tasks, { steps: 4 }, { stopping });
  expect(stopped.finished).toBe(false);
  expect(stopped.state.moments.step).toBe(2);
  expect(stopped.saved).toEqual([stopped.state]);
  asked = 0;
  const last = await run(tasks, { steps: 1 }, { stopping: () => ++asked > 0 });
  expect(last.finished).toBe(true);
  expect(last.saved).toHaveLength(1);
  expect(asked).toBe(0);
});

test("a run that goes on is the run that never stopped", async () => {
  const tasks = [toyTask("t", { validation: numbered(3) }), toyTask("o", { validation: [hurt, helped] })];
  const whole = await run(tasks, { steps: 4 });
  const half = await run(tasks, { steps: 4 }, { stopping: () => true });
  const rest = await run(tasks, { steps: 4 }, { start: () => half.state });
  expect(
    rest.records.map(({ step }) => step),
    "it begins with no score of its own",
  ).toEqual([2, 3, 4]);
  expect([...half.records, ...rest.records]).toEqual(whole.records);
  expect(rest.state).toEqual(whole.state);
  const over = await run(tasks, { steps: 4 }, { start: () => whole.state });
  expect([over.records, over.saved, over.finished]).toEqual([[], [], true]);
});

test("a loss that is no number ends the run, and says at which step and what may help", async () => {
  const broken = run([toyTask("t", { validation: [toyExample([NaN, 0], 0)] })]);
  await expect(broken).rejects.toThrow("the loss became NaN at step 1; try a lower --lr");
  await expect(broken).rejects.toBeInstanceOf(RangeError);
});

test("a block at a time, it comes to the same", async () => {
  const tasks = [toyTask("t", { validation: numbered(3) })];
  const [whole, blocks] = [await run(tasks), await run(tasks, {}, { place: { blockwise: true } })];
  expect(blocks.state.raw).toEqual(whole.state.raw);
  // Each block reads the batch anew, and so does each pass back; a step of the whole model reads it once.
  expect(blocks.records).toEqual(whole.records);
});

test("patience ends a run where nothing better was found for so many steps, and it stays ended", async () => {
  const tasks = [toyTask("a", { validation: [helped, hurt] })];
  // What it starts from is never bettered: the two pull against each other.
  const start = (fresh: TrainState): TrainState => ({ ...fresh, best: { step: 0, loss: 0, raw: fresh.raw } });
  const changed = { steps: 9, patience: 3 };
  const ended = await run(tasks, changed, { start });
  expect(ended.finished).toBe(true);
  expect(ended.state.moments.step).toBe(3);
  expect(ended.saved.at(-1)!.moments.step, "the state is saved where it ends").toBe(3);
  expect(chosenStep(ended.state, ended.all)).toBe(0);
  expect(chosenText(ended.state, ended.all)).toBe(
    "step 0 of 9 is kept (held-out loss 0.0000); nothing better for 3 steps: stopped at 3",
  );
  const again = await run(tasks, changed, { start: () => ended.state });
  expect(again.state.moments.step).toBe(3);
  expect((await run(tasks, { ...changed, patience: 20 }, { start })).state.moments.step).toBe(9);
});

test("the step that is kept is said: of a loss without labels, the last", async () => {
  const tasks = [toyTask("a", { validation: [helped] })];
  const best = await run(tasks);
  expect(chosenText(best.state, best.all)).toMatch(/^step 3 of 3 is kept \(held-out loss 0\.\d{4}\)$/);
  const last = await run(tasks, { loss: "entropy" });
  expect(chosenText(last.state, last.all)).toBe("step 3 of 3, the last, is kept (no labels to choose by)");
  expect(chosenStep(last.state, last.all)).toBe(3);
});
