import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { UserError } from "../../src/errors.js";
import { golden, rte, temporaryFolder } from "../helpers.js";
import { pictureOf, type Example } from "../../src/tasks/examples.js";
import type { Task } from "../../src/tasks/registry.js";
import { loadTaskData, shotsOf, shuffled, trainingData } from "../../src/tasks/split.js";

/** Which examples train, choose and test, on files of texts that are known by a number each. */
const folder = await temporaryFolder();
const line = (n: number, label: number | undefined) =>
  `${JSON.stringify({ text_a: `t${n}`, text_b: "b", ...(label !== undefined && { label }) })}\n`;

let made = 0;
/** A data folder with so many examples in each file: numbers 0, 1, … for train, 100, … and 200, … */
async function dataOf(
  counts: Partial<Record<"train" | "validation" | "test", number>>,
  { hidden = [], id = "rte" }: { hidden?: readonly string[]; id?: string } = {},
): Promise<string> {
  const data = join(folder, String(made++));
  await mkdir(join(data, id), { recursive: true });
  for (const [split, count] of Object.entries(counts)) {
    const first = { train: 0, validation: 100, test: 200 }[split]!;
    const lines = Array.from({ length: count }, (_, i) =>
      line(first + i, hidden.includes(split) ? undefined : i % 2),
    );
    await writeFile(join(data, id, `${split}.jsonl`), lines.join(""));
  }
  return data;
}
const numbers = (examples: readonly Example[]) => examples.map(({ texts }) => Number(texts[0]![0].slice(1)));
const sorted = (values: readonly number[]) => [...values].sort((a, b) => a - b);
const range = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i);

test("a shuffle is the same on every machine, holds everything once, and leaves what it was given", () => {
  const given = [0, 1, 2, 3, 4, 5, 6, 7];
  expect(shuffled(given, "7/order/rte/0")).toEqual([2, 3, 4, 6, 7, 5, 1, 0]);
  expect(given).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(sorted(shuffled(given, "another"))).toEqual(given);
  // Every item comes to every place.
  const places = new Set(
    range(0, 200).flatMap((seed) => shuffled([0, 1, 2], `${seed}`).map((x, i) => `${x} ${i}`)),
  );
  expect(places.size).toBe(9);
  expect(shuffled([], "x")).toEqual([]);
});

test.each([
  { files: { train: 40, validation: 20, test: 10 }, from: "validation", on: "test" },
  { files: { train: 40, test: 10 }, from: "train", on: "test" },
  { files: { train: 40, validation: 20 }, from: "train", on: "validation" },
  { files: { train: 40, validation: 20, test: 10 }, hidden: ["test"], from: "train", on: "validation" },
  { files: { train: 40, validation: 20, test: 10 }, hidden: ["validation"], from: "train", on: "test" },
] as const)(
  "of $files (labels hidden: $hidden), $from is drawn from and all of $on is the test",
  async (given) => {
    const { files, from, on } = given;
    const data = await dataOf(files, { hidden: "hidden" in given ? given.hidden : [] });
    const first = { train: 0, validation: 100, test: 200 };
    const found = await loadTaskData(data, rte, { valPerTask: 8, seed: 0 });
    const count = (files as Record<string, number>)[on]!;
    expect(numbers(found.test)).toEqual(range(first[on], count));
    const drawn = numbers(found.validation);
    expect(drawn).toHaveLength(8);
    expect(drawn.every((n) => n >= first[from] && n < first[from] + 40)).toBe(true);
    expect(found.sources.test.name).toBe(join(data, "rte", `${on}.jsonl`));
    expect(found.sources.validation.name).toBe(join(data, "rte", `${from}.jsonl`));
  },
);

test.each(["train", "validation", "test"] as const)("%s alone is shuffled and cut in two", async (only) => {
  const data = await dataOf({ [only]: 12 });
  const first = { train: 0, validation: 100, test: 200 }[only];
  const found = await loadTaskData(data, rte, { valPerTask: 11, seed: 0 });
  expect(found.validation).toHaveLength(11);
  expect(sorted(numbers([...found.validation, ...found.test]))).toEqual(range(first, 12));
  expect(numbers([...found.validation, ...found.test])).not.toEqual(range(first, 12));
  expect(found.sources.validation).toBe(found.sources.test);
  expect(found.sources.test.name).toBe(join(data, "rte", `${only}.jsonl`));
  const tooMany = loadTaskData(data, rte, { valPerTask: 12, seed: 0 });
  await expect(tooMany).rejects.toBeInstanceOf(UserError);
  await expect(tooMany).rejects.toThrow(
    `${join(data, "rte", `${only}.jsonl`)}: its 12 examples leave nothing to test on after --val-per-task 12`,
  );
});

test("validation is drawn by seed and task; fewer than asked for are all that there are", async () => {
  const files = { validation: 20, test: 5 };
  const of = async (seed: number, id = "rte", count = 10) =>
    numbers(
      (await loadTaskData(await dataOf(files, { id }), { ...rte, id }, { valPerTask: count, seed }))
        .validation,
    );
  expect(await of(0)).toEqual(await of(0));
  expect(await of(1)).not.toEqual(await of(0));
  expect(await of(0, "cb")).not.toEqual(await of(0));
  expect(sorted(await of(0, "rte", 50))).toEqual(range(100, 20));
  // More examples begin with the ones that fewer are.
  expect((await of(0, "rte", 15)).slice(0, 10)).toEqual(await of(0));
});

test("a task whose labels are hidden everywhere is refused", async () => {
  const data = await dataOf({ validation: 3, test: 3 }, { hidden: ["validation", "test"] });
  const refused = loadTaskData(data, rte, { valPerTask: 1, seed: 0 });
  await expect(refused).rejects.toThrow(`${data}/rte: no file of it carries labels`);
  await expect(refused).rejects.toBeInstanceOf(UserError);
});

const order = golden<{ count: number; seed: number; order: number[] }[]>("shuffles");

test("the papers' split cuts the published validation set in Python's order with seed 42", async () => {
  const published = order.find(({ count, seed }) => count === 56 && seed === 42)!;
  for (const [files, hidden, name, first] of [
    [{ train: 9, validation: 56 }, [], "validation", 100],
    [{ train: 9, validation: 56, test: 9 }, ["test"], "validation", 100],
    // Alone it may be called a test set.
    [{ train: 9, test: 56 }, [], "test", 200],
    [{ train: 9, validation: 9, test: 56 }, ["validation"], "test", 200],
  ] as const) {
    const data = await dataOf(files, { hidden });
    const found = await loadTaskData(data, rte, { valPerTask: 50, seed: 5, split: "paper" });
    expect(numbers([...found.validation, ...found.test])).toEqual(published.order.map((n) => first + n));
    expect(found.validation).toHaveLength(50);
    expect(found.sources.validation.name).toBe(join(data, "rte", `${name}.jsonl`));
    expect(found.sources.test).toBe(found.sources.validation);
  }
});

test("where the published test set has labels, the papers test on all of it", async () => {
  const published = order.find(({ count, seed }) => count === 56 && seed === 42)!;
  const data = await dataOf({ train: 9, validation: 56, test: 40 });
  const found = await loadTaskData(data, rte, { valPerTask: 50, seed: 5, split: "paper" });
  expect(numbers(found.validation)).toEqual(published.order.slice(0, 50).map((n) => 100 + n));
  expect(numbers(found.test)).toEqual(range(200, 40));
  expect(found.sources.test.name).toBe(join(data, "rte", "test.jsonl"));
  // More than there are is all of them: nothing is cut.
  const all = await loadTaskData(data, rte, { valPerTask: 500, seed: 5, split: "paper" });
  expect(all.validation).toHaveLength(56);
});

test("a tenth of the training examples is for merges, whatever the seeds: experts are not trained on it", async () => {
  for (const files of [
    { train: 95, validation: 20 },
    { train: 95, validation: 20, test: 10 },
  ]) {
    const data = await dataOf(files);
    const drawn = (seed: number, valPerTask = 100) =>
      loadTaskData(data, rte, { valPerTask, seed, split: "tenth" });
    const tenth = sorted(numbers((await drawn(0)).validation));
    expect(tenth).toHaveLength(9);
    expect(sorted(numbers((await drawn(1)).validation))).toEqual(tenth);
    expect(numbers((await drawn(1, 4)).validation)).toEqual(numbers((await drawn(1)).validation).slice(0, 4));
    expect(numbers((await drawn(1)).validation)).not.toEqual(numbers((await drawn(0)).validation));
    const tests = "test" in files ? range(200, 10) : range(100, 20);
    expect(numbers((await drawn(0)).test)).toEqual(tests);
    for (const seed of [0, 7]) {
      const { train, judge, sources } = await trainingData(data, rte, seed, "tenth");
      expect(sorted(numbers(judge))).toEqual(tenth);
      expect(sorted([...numbers(train), ...tenth])).toEqual(range(0, 95));
      expect(sources.map(({ name }) => name)).toEqual([join(data, "rte", "train.jsonl")]);
    }
  }
  const refused = async (files: Parameters<typeof dataOf>[0]) =>
    loadTaskData(await dataOf(files), rte, { valPerTask: 1, seed: 0, split: "tenth" });
  await expect(refused({ train: 20 })).rejects.toThrow("there is no test or validation file with labels");
  await expect(refused({ test: 20 })).rejects.toThrow("there is no training file with labels");
});

test("the papers' split is refused where nothing would be left, or nothing was published", async () => {
  const data = await dataOf({ train: 50, validation: 7 });
  expect((await loadTaskData(data, rte, { valPerTask: 6, seed: 0, split: "paper" })).test).toHaveLength(1);
  const file = join(data, "rte", "validation.jsonl");
  const nothingLeft = loadTaskData(data, rte, { valPerTask: 7, seed: 0, split: "paper" });
  await expect(nothingLeft).rejects.toThrow(
    `${file}: its 7 examples leave nothing to test on after --val-per-task 7`,
  );
  await expect(nothingLeft).rejects.toBeInstanceOf(UserError);
  const none = await dataOf({ train: 50 });
  const unpublished = loadTaskData(none, rte, { valPerTask: 7, seed: 0, split: "paper" });
  await expect(unpublished).rejects.toThrow(
    `${none}/rte: --split paper draws from the published validation set, and there is none with labels`,
  );
  await expect(unpublished).rejects.toBeInstanceOf(UserError);
});

test("fine-tuning takes train and validation where the test is a file of its own", async () => {
  const data = await dataOf({ train: 20, validation: 5, test: 4 });
  const { train, judge, sources } = await trainingData(data, rte, 0);
  expect(numbers(train)).toEqual(range(0, 20));
  expect(numbers(judge)).toEqual(range(100, 5));
  expect(sources.map(({ name }) => name)).toEqual(
    ["train", "validation"].map((name) => join(data, "rte", `${name}.jsonl`)),
  );
});

test.each([
  { files: { train: 20, validation: 5 }, judges: 2 },
  { files: { train: 20, test: 5 }, judges: 2 },
  { files: { train: 29, validation: 5, test: 5 }, hidden: ["test"], judges: 2 },
  { files: { train: 9, test: 5 }, judges: 1 },
])(
  "fine-tuning on $files: $judges of its training examples choose, and train nothing",
  async ({ files, hidden, judges }) => {
    const data = await dataOf(files, { hidden: hidden ?? [] });
    const { train, judge, sources } = await trainingData(data, rte, 0);
    expect(judge).toHaveLength(judges);
    expect(sorted(numbers([...train, ...judge]))).toEqual(range(0, files.train));
    expect(sources.map(({ name }) => name)).toEqual([join(data, "rte", "train.jsonl")]);
  },
);

test("which training examples choose is drawn by seed and task", async () => {
  const of = async (seed: number, id = "rte") =>
    numbers((await trainingData(await dataOf({ train: 60, test: 5 }, { id }), { ...rte, id }, seed)).judge);
  expect(await of(0)).toEqual(await of(0));
  expect(await of(1)).not.toEqual(await of(0));
  expect(await of(0, "cb")).not.toEqual(await of(0));
  // Another draw than that of the validation examples.
  const data = await dataOf({ train: 60, test: 5 });
  expect(numbers((await loadTaskData(data, rte, { valPerTask: 6, seed: 0 })).validation)).not.toEqual(
    await of(0),
  );
});

test("fine-tuning is refused without a training file, or with one alone", async () => {
  const [none, alone] = [await dataOf({ validation: 5, test: 5 }), await dataOf({ train: 20 })];
  const refusals = [trainingData(none, rte, 0), trainingData(alone, rte, 0)];
  for (const refusal of refusals) await expect(refusal).rejects.toBeInstanceOf(UserError);
  await expect(refusals[0]).rejects.toThrow(`${none}/rte: there is no training file with labels`);
  await expect(refusals[1]).rejects.toThrow(
    `${alone}/rte: there is a training file alone, which merges are tested on a part of; put a ` +
      "test or validation file beside it",
  );
});

test("an image task is read as pictures: two arrays of bytes", async () => {
  const data = join(folder, "images");
  await mkdir(join(data, "digits"), { recursive: true });
  const int = (n: number) => [0, 0, 0, n];
  const pictures = (count: number) =>
    Uint8Array.from([0, 0, 8, 3, ...int(count), ...int(1), ...int(2), ...range(0, 2 * count)]);
  const classes = (of: readonly number[]) => Uint8Array.from([0, 0, 8, 1, ...int(of.length), ...of]);
  for (const [name, bytes] of Object.entries({
    "train-images-idx3-ubyte": pictures(3),
    "train-labels-idx1-ubyte": classes([1, 1, 1]),
    "t10k-images-idx3-ubyte": pictures(2),
    "t10k-labels-idx1-ubyte": classes([1, 0]),
  }))
    await writeFile(join(data, "digits", name), bytes);
  const digits: Task = { ...rte, id: "digits", kind: "image", labels: ["zero", "one"] };
  const found = await loadTaskData(data, digits, { valPerTask: 2, seed: 0 });
  expect(found.test.map((one) => [one.label, [...pictureOf(one).pixels]])).toEqual([
    [1, [0, 1]],
    [0, [2, 3]],
  ]);
  expect(found.validation.map(({ label }) => label)).toEqual([1, 1]);
});

test("solved examples are the first of the training file; too few are refused", async () => {
  const data = await dataOf({ train: 4, test: 9 });
  expect(numbers(await shotsOf(data, { ...rte, shots: 3 }))).toEqual([0, 1, 2]);
  expect(await shotsOf(data, rte)).toEqual([]);
  await expect(shotsOf(data, { ...rte, shots: 5 })).rejects.toThrow(
    "asks with 5 solved examples before it, and its training file has 4",
  );
  const none = await dataOf({ test: 9 });
  await expect(shotsOf(none, { ...rte, shots: 1 })).rejects.toThrow(UserError);
});
