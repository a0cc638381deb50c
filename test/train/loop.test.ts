import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startEngine } from "../../src/backend/index.js";
import type { PreparedTask } from "../../src/evaluate/evaluate.js";
import type { TokenRow } from "../../src/models/types.js";
import { packageFolder } from "../../src/package.js";
import {
  chosenRaw,
  initialState,
  train,
  type TrainOptions,
  type TrainRecord,
  type TrainState,
} from "../../src/train/loop.js";
import { load, toBatch, type Loaded } from "../conformance/load.js";

/** What training decides: on which examples, by which, and which step is kept. On the family that ships. */
let mini: Loaded;
beforeAll(async () => {
  await startEngine("wasm");
  mini = await load(join(packageFolder, "checkpoints", "mini"), "mini");
});
afterAll(() => mini.dispose());

const options: TrainOptions = {
  steps: 4,
  lr: 0.1,
  warmup: 0,
  decay: "none",
  weightDecay: 0,
  batchSize: 2,
  gate: "tanh",
  init: 0.3,
  holdout: 0.25,
  loss: "cross-entropy",
  evalEvery: 100,
  saveEvery: 100,
  seed: 0,
  batchesPerStep: 1,
  adaptOn: "validation",
  microBatch: 2048,
};

/** The first two tasks, eight examples each. */
function tasks(): PreparedTask[] {
  return mini.golden.batches.slice(0, 2).map((g, i) => {
    const { rows } = toBatch(g);
    const validation = rows.map((row, r) => ({
      kind: "classify" as const,
      rows: [row],
      label: g.labels[r]!,
      length: row.ids.length,
    }));
    return { id: g.task, kind: "classify", synthetic: true, head: mini.heads[i], validation, test: [] };
  });
}

/** Trains and writes down every record, and every row that the model was given between two of them. */
async function run(changed: Partial<TrainOptions>, given = tasks()) {
  const all = { ...options, ...changed };
  const records: TrainRecord[] = [];
  const seen: Set<TokenRow>[] = [new Set()];
  const model = {
    ...mini.model,
    prepare(rows: readonly TokenRow[]) {
      rows.forEach((row) => seen.at(-1)!.add(row));
      return mini.model.prepare(rows);
    },
  };
  const states: TrainState[] = [];
  const { state } = await train(
    { place: { model, vectors: mini.vectors }, tasks: given, options: all },
    initialState(mini.vectors.layers.length, 5, all),
    {
      record(record) {
        records.push(record);
        seen.push(new Set());
      },
      save: async (saved) => void states.push(saved),
      stopping: () => false,
    },
  );
  return { records, seen, state, all, given, states };
}

test("examples held out choose the step and are never trained on; all others are", async () => {
  const { seen, given } = await run({ steps: 5 });
  // Between the record of step 0 and that of step 4 nothing is scored: what is seen is trained on.
  const trained = new Set(seen.slice(1, 5).flatMap((rows) => [...rows]));
  const [scored] = seen;
  for (const { validation } of given) {
    const [held, fit] = [validation.slice(0, 2), validation.slice(2)];
    expect(held.filter(({ rows: [row] }) => trained.has(row!))).toEqual([]);
    expect(held.every(({ rows: [row] }) => scored!.has(row!))).toBe(true);
    expect(fit.every(({ rows: [row] }) => trained.has(row!))).toBe(true);
    expect(fit.some(({ rows: [row] }) => scored!.has(row!))).toBe(false);
  }
});

test("with nothing held out, the step is chosen on what is trained on", async () => {
  const { seen, given } = await run({ holdout: 0 });
  for (const { validation } of given)
    expect(validation.every(({ rows: [row] }) => seen[0]!.has(row!))).toBe(true);
});

test("the step with the lowest held-out loss is kept, the earliest of equals", async () => {
  // So large a step that the loss goes up and down.
  const { records, state, all } = await run({ steps: 8, evalEvery: 1, lr: 0.3 });
  const scored = records.filter(({ validation }) => validation !== undefined);
  const losses = scored.map(({ validation }) => validation!.loss);
  const lowest = losses.indexOf(Math.min(...losses));
  expect(scored).toHaveLength(9);
  // Not the last, and not far below it: nothing but the comparison itself decides.
  expect(lowest).toBeLessThan(8);
  expect(losses[8]! - losses[lowest]!).toBeLessThan(1);
  expect(state.best!.step).toBe(scored[lowest]!.step);
  const kept = Array.from(chosenRaw(state, all).values, (raw) => Math.round(Math.tanh(raw) * 1e4) / 1e4);
  expect(kept).toEqual(scored[lowest]!.coefficients);
  // Where nothing moves, all are equal: the first.
  expect((await run({ steps: 3, evalEvery: 1, lr: 0 })).state.best!.step).toBe(0);
  // A loss without labels has nothing to choose by.
  expect(chosenRaw(state, { ...all, loss: "entropy" })).toBe(state.raw);
});

test("a loss without labels trains on every example, with --adapt-on test on the test inputs", async () => {
  const without = await run({ loss: "entropy", steps: 5 });
  const trained = new Set(without.seen.slice(1, 5).flatMap((rows) => [...rows]));
  for (const { validation } of without.given)
    expect(validation.every(({ rows: [row] }) => trained.has(row!))).toBe(true);

  const given = tasks().map((task) => ({
    ...task,
    validation: task.validation.slice(0, 4),
    test: task.validation.slice(4),
  }));
  const adapted = await run({ loss: "entropy", adaptOn: "test", steps: 3 }, given);
  const onTest = new Set(adapted.seen.slice(1, 3).flatMap((rows) => [...rows]));
  for (const { validation, test: inputs } of given) {
    expect(validation.some(({ rows: [row] }) => onTest.has(row!))).toBe(false);
    expect(inputs.every(({ rows: [row] }) => onTest.has(row!))).toBe(true);
  }
});

test("a task's weight multiplies its loss, in training and in choosing", async () => {
  const [even, uneven] = [await run({ steps: 1 }), await run({ steps: 1, taskWeights: [3, 1] })];
  const [a, b] = even.records[1]!.losses!;
  expect(uneven.records[1]!.losses![0]).toBeCloseTo(3 * a!, 5);
  expect(uneven.records[1]!.losses![1]).toBeCloseTo(b!, 5);
  expect(uneven.records[0]!.validation!.loss).toBeGreaterThan(even.records[0]!.validation!.loss);
});

test("the state is saved every so many steps and after the last", async () => {
  const { states } = await run({ steps: 5, saveEvery: 2 });
  expect(states.map(({ moments }) => moments.step)).toEqual([2, 4, 5]);
});
