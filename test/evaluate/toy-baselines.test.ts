import { beforeAll, expect, test } from "vitest";
import {
  evaluateBaselines,
  expertOf,
  evaluateReferences,
  searchLambda,
  toRows,
} from "../../src/evaluate/baselines.js";
import type { PreparedTask } from "../../src/evaluate/evaluate.js";
import { startToy, toyExample, toyFamily, toyTask } from "../toy.js";

/** What a merge is measured beside, on a model whose logits are its input's numbers, times what is merged. */
beforeAll(startToy);

/** Doubles the first logit at coefficient 1, or the second. */
const experts = { one: { u: [1, 0] }, "two+three": { u: [0, 1] } } as const;
/** The first logit wins as soon as c · x, with c over the base's 1, is more than 1.45. */
const close = toyExample([1, 1.45], 0);

test("a table's column speaks for its task; a merge of tasks is called after all of them", async () => {
  const place = await toyFamily({ ...experts, four: { u: [1, 1] } });
  const of = (id: string) => expertOf(place, toyTask(id, { validation: [] }));
  expect(["one", "two", "three", "four", "two+three"].map(of)).toEqual([0, 1, 1, 2, 1]);
  expect(["tw", "five"].map(of)).toEqual([-1, -1]);
  place.dispose();
});

test("rows say what was measured, how, on how many and with which seed", () => {
  const tasks = [
    toyTask("a", { validation: [], test: [close] }),
    toyTask("b", { validation: [] }, { kind: "generate", generation: { most: 1, text: () => "" } }),
    toyTask("c", { validation: [] }, { kind: "choose" }),
  ];
  const scores = [0.5, 0.25, 0].map((accuracy, i) => ({ accuracy, metrics: {}, loss: 9, n: i + 1 }));
  const row = { method: "mine", split: "test", seed: 7 };
  expect(toRows("mine", tasks, scores, 7)).toEqual([
    { ...row, task: "a", metric: "accuracy", value: 0.5, n: 1 },
    { ...row, task: "b", metric: "exact-match", value: 0.25, n: 2 },
    { ...row, task: "c", metric: "accuracy", value: 0, n: 3 },
  ]);
  expect(toRows("mine", [], [], 0)).toEqual([]);
});

test("the search of λ scores every point of its grid on the validation examples, as a mean over tasks", async () => {
  const { dispose, ...place } = await toyFamily({ one: experts.one });
  const tasks = [
    // Right from λ = 0.5 on; wrong on its test examples.
    toyTask("a", { validation: [close], test: [toyExample([0, 1], 0)] }),
    toyTask("b", { validation: [toyExample([1, 1.75], 0)] }),
  ];
  const seen: [number, number][] = [];
  const points = await searchLambda(place, tasks, (done, of) => void seen.push([done, of]));
  dispose();
  expect(points.map(({ lambda, accuracy }) => [lambda, accuracy])).toEqual([
    [0.1, 0],
    [0.2, 0],
    [0.3, 0],
    [0.4, 0],
    [0.5, 0.5],
    [0.6, 0.5],
    [0.7, 0.5],
    [0.8, 1],
    [0.9, 1],
    [1, 1],
  ]);
  const lossAt = (lambda: number, other: number) => Math.log(1 + Math.exp(other - (1 + lambda)));
  for (const { lambda, loss } of points)
    expect(loss).toBeCloseTo((lossAt(lambda, 1.45) + lossAt(lambda, 1.75)) / 2, 5);
  expect(seen).toEqual(Array.from({ length: 10 }, (_, i) => [i + 1, 10]));
});

test("baselines: every expert on its own task; base, mean and task arithmetic on all", async () => {
  const { dispose, ...place } = await toyFamily(experts);
  /** What is right of a merge at each coefficient of the first logit over the second. */
  const ladder = [1, 1.2, 1.4, 1.6, 1.8].map((x) => toyExample([1, x], 0));
  const tasks: PreparedTask[] = [
    toyTask("three", { validation: [], test: [toyExample([1.5, 1], 1), toyExample([3, 1], 1)] }),
    toyTask("one", { validation: [], test: ladder }),
  ];
  const seen: string[] = [];
  const rows = await evaluateBaselines(place, tasks, 0.25, {
    seed: 3,
    progress: (method, done, of) => void seen.push(`${method} ${done}/${of}`),
  });
  dispose();
  const brief = rows.map(({ method, task, value, n, seed, split }) => [method, task, value, n, seed, split]);
  expect(brief).toEqual([
    // 1.5 < 2 · 1, and 3 > 2 · 1.
    ["individual", "three", 0.5, 2, 3, "test"],
    ["individual", "one", 1, 5, 3, "test"],
    ["pretrained", "three", 0, 2, 3, "test"],
    // Equal logits go to the first.
    ["pretrained", "one", 0.2, 5, 3, "test"],
    ["average", "three", 0, 2, 3, "test"],
    ["average", "one", 0.2, 5, 3, "test"],
    ["task-arithmetic", "three", 0, 2, 3, "test"],
    ["task-arithmetic", "one", 0.2, 5, 3, "test"],
  ]);
  expect(seen).toEqual([
    "individual 0/2",
    "individual 1/2",
    "pretrained 0/3",
    "average 1/3",
    "task-arithmetic 2/3",
  ]);
});

test("mean and task arithmetic differ: the one divides by the experts, the other has its λ", async () => {
  // Both experts raise the first logit: base + c · 2.
  const { dispose, ...place } = await toyFamily({ one: { u: [1, 0] }, two: { u: [1, 0] } });
  const ladder = [0.9, 1.1, 1.9, 2.1, 2.9, 3.1].map((x) => toyExample([1, x], 0));
  const tasks = [toyTask("one", { validation: [], test: ladder })];
  const rows = await evaluateBaselines(place, tasks, 1, { seed: 0, progress: () => {} });
  dispose();
  expect(rows.map(({ method, value }) => [method, Math.round(6 * value)])).toEqual([
    ["individual", 3],
    ["pretrained", 1],
    ["average", 3],
    ["task-arithmetic", 5],
  ]);
});

test("beside other merges stand every expert on its own task, and the base on all", async () => {
  const { dispose, ...place } = await toyFamily(experts);
  const tasks = [
    toyTask("three", { validation: [], test: [toyExample([1.5, 1], 1), toyExample([3, 1], 1)] }),
    toyTask("one", { validation: [close], test: [close] }),
  ];
  const seen: string[] = [];
  const rows = await evaluateReferences(place, tasks, {
    seed: 3,
    progress: (method, done, of) => void seen.push(`${method} ${done}/${of}`),
  });
  dispose();
  expect(rows.map(({ method, task, value, seed, split }) => [method, task, value, seed, split])).toEqual([
    ["individual", "three", 0.5, 3, "test"],
    ["individual", "one", 1, 3, "test"],
    ["pretrained", "three", 0, 3, "test"],
    ["pretrained", "one", 0, 3, "test"],
  ]);
  expect(seen).toEqual(["individual 0/2", "individual 1/2", "pretrained 0/1"]);
});
