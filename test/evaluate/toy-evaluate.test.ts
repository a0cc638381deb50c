import { emptyTally, tally } from "../../src/evaluate/answers.js";
import { rowsBatch } from "../../scripts/rows-batch.js";
import { memory, tensor1d, tensor2d } from "@tensorflow/tfjs-core";
import { beforeAll, expect, test, vi } from "vitest";
import type { MergeContext } from "../../src/evaluate/baselines.js";
import {
  batchLogits,
  evaluateTasks,
  type HeadBatch,
  type PreparedTask,
} from "../../src/evaluate/evaluate.js";
import { constantTables } from "../../src/merge/table.js";
import type { Head } from "../../src/models/layers.js";
import type { Model } from "../../src/models/types.js";
import type { EncodedExample } from "../../src/tasks/batches.js";
import type { Answering } from "../../src/tasks/encoders.js";
import { startToy, toyExample, toyFamily, toyModel, toyTask } from "../toy.js";

/** How a merge is measured, on a model whose logits are its input's two numbers, times what is merged. */
beforeAll(startToy);

const lossOf = (right: number, wrong: number) => Math.log(1 + Math.exp(wrong - right));
/** The expert doubles the first logit. */
const family = (model?: Model) =>
  toyFamily({ a: { u: [1, 0], v: [0, 0.5] } }, { model: model ?? toyModel() });
const whole = (place: MergeContext, coefficient = 0) => ({
  ...place,
  table: constantTables.taskArithmetic(place.vectors.layers.length, 1, coefficient),
});

async function scoresOf(
  tasks: readonly PreparedTask[],
  {
    coefficient = 0,
    split = "test",
    model,
    place,
  }: {
    coefficient?: number;
    split?: "validation" | "test";
    model?: Model;
    place?: Partial<MergeContext>;
  } = {},
) {
  const { dispose, ...found } = await family(model);
  const scores = await evaluateTasks({ ...whole(found, coefficient), ...place }, tasks, split);
  dispose();
  return scores;
}
const tested = (examples: PreparedTask["test"], answering?: Answering, head?: Head) =>
  toyTask("t", { validation: [], test: examples, head }, answering);

test("accuracy: the part whose label has the highest logit, the first of equals; loss: a mean in nats", async () => {
  const [score] = await scoresOf([
    tested([toyExample([2, 1], 0), toyExample([2, 1], 1), toyExample([0, 3], 1), toyExample([1, 1], 1)]),
  ]);
  expect(score!.accuracy).toBe(0.5);
  expect(score!.n).toBe(4);
  expect(score!.loss).toBeCloseTo((lossOf(2, 1) + lossOf(1, 2) + lossOf(3, 0) + lossOf(1, 1)) / 4, 6);
  expect((await scoresOf([tested([toyExample([1, 1], 0)])]))[0]!.accuracy).toBe(1);
});

test("coefficients are what is merged with", async () => {
  const example = toyExample([2, 3], 0);
  const at = async (coefficient: number) => (await scoresOf([tested([example])], { coefficient }))[0]!;
  // u = [1 + c, 1], v = [1, 1 + c / 2].
  expect(await at(0)).toMatchObject({ accuracy: 0, n: 1, loss: expect.closeTo(lossOf(2, 3), 6) as number });
  expect(await at(1)).toMatchObject({ accuracy: 0, n: 1, loss: expect.closeTo(lossOf(4, 4.5), 6) as number });
  expect(await at(4)).toMatchObject({ accuracy: 1, n: 1, loss: expect.closeTo(lossOf(10, 9), 6) as number });
});

test("a loss of huge logits is a number", async () => {
  const [score] = await scoresOf([tested([toyExample([2000, 1000], 1), toyExample([-2000, -1000], 0)])]);
  expect(score!.loss).toBe(1000);
});

test("of a choice, the rows of an example compete, and the head scores each", async () => {
  const head = { weight: tensor2d([[1, 0]]), bias: tensor1d([5]) };
  const choice = (values: readonly number[], label: number): EncodedExample => ({
    kind: "choose",
    rows: values.map((x) => ({ ids: [x, 9], types: [] })),
    label,
    length: 2,
  });
  const [score] = await scoresOf([
    tested([choice([1, 3, 2], 1), choice([4, 0, 0], 2), choice([0, 1, 2], 2)], { kind: "choose" }, head),
  ]);
  expect(score!.accuracy).toBeCloseTo(2 / 3);
  const nats = (right: number, ...others: number[]) =>
    Math.log(1 + others.reduce((sum, x) => sum + Math.exp(x - right), 0));
  expect(score!.loss).toBeCloseTo((nats(3, 1, 2) + nats(0, 4, 0) + nats(2, 0, 1)) / 3, 6);
});

test("tasks are scored together and reported in their order, on the split that is asked for", async () => {
  const tasks = [
    toyTask("one", { validation: [toyExample([2, 1], 0)], test: [toyExample([2, 1], 1)] }),
    toyTask("two", {
      validation: [toyExample([2, 1], 1)],
      test: [toyExample([2, 1], 0), toyExample([2, 1], 0)],
    }),
  ];
  const of = async (split: "validation" | "test") =>
    (await scoresOf(tasks, { split })).map(({ accuracy, n }) => [accuracy, n]);
  expect(await of("validation")).toEqual([
    [1, 1],
    [0, 1],
  ]);
  expect(await of("test")).toEqual([
    [0, 1],
    [1, 2],
  ]);
});

test("a task without examples scores nothing, and is in nobody's way", async () => {
  const [none, one] = await scoresOf([tested([]), tested([toyExample([2, 1], 0)])]);
  expect(none!.n).toBe(0);
  expect(one!.accuracy).toBe(1);
});

test("with several templates, a test score is the median over them; a validation score looks at none", async () => {
  const [right, wrong] = [toyExample([2, 1], 0), toyExample([2, 1], 1)];
  const far = toyExample([9, 1], 1);
  const task = (...tests: PreparedTask["test"][]) =>
    toyTask("t", { validation: [wrong, wrong], test: tests[0]!, tests });
  const of = async (tests: PreparedTask["test"][], split: "validation" | "test" = "test") =>
    (await scoresOf([task(...tests), tested([right])], { split }))[0]!;
  expect(
    await of([
      [right, right],
      [wrong, far],
      [wrong, right],
    ]),
  ).toMatchObject({
    accuracy: 0.5,
    loss: expect.closeTo((lossOf(1, 2) + lossOf(2, 1)) / 2, 6) as number,
    n: 2,
  });
  // Of an even number, the mean of the two in the middle.
  const even = await of([[right], [wrong], [far], [far]]);
  expect(even.accuracy).toBe(0);
  expect(even.loss).toBeCloseTo((lossOf(1, 2) + lossOf(1, 9)) / 2, 6);
  expect((await of([[right], [wrong]])).accuracy).toBe(0.5);
  expect(await of([[right], [right], [right]], "validation")).toMatchObject({ accuracy: 0, n: 2 });
  // What stands behind it is scored as it is.
  const [, other] = await scoresOf([task([right], [wrong]), tested([right, right])]);
  expect(other).toMatchObject({ accuracy: 1, n: 2 });
});

/** A model that notes how many rows each pass reads. */
function counting(changed: Partial<Model> = {}) {
  const passes: number[] = [];
  const plain = toyModel(changed);
  return {
    passes,
    model: toyModel({
      ...changed,
      prepare(rows) {
        passes.push(rows.length);
        return plain.prepare(rows);
      },
    }),
  };
}

test("32 examples run together, of no more tokens than share a pass", async () => {
  const examples = Array.from({ length: 33 }, () => toyExample([2, 1], 0));
  const passesOf = async (place: Partial<MergeContext>, of = examples) => {
    const { passes, model } = counting();
    await scoresOf([tested(of)], { model, place: { ...place, model } });
    return passes;
  };
  expect(await passesOf({})).toEqual([32, 1]);
  // Two tokens each.
  expect(await passesOf({ microBatch: 40 })).toEqual([20, 12, 1]);
  const long = Array.from({ length: 4 }, () => toyExample([2, 1, ...Array<number>(998).fill(0)], 0));
  expect(await passesOf({}, long), "2048 tokens, where nobody says").toEqual([2, 2]);
});

test("a block at a time, it comes to the same", async () => {
  const tasks = [tested([toyExample([2, 1], 0), toyExample([2, 3], 1)]), tested([toyExample([4, 1], 1)])];
  const run = (blockwise: boolean) => scoresOf(tasks, { coefficient: 0.7, place: { blockwise } });
  expect(await run(true)).toEqual(await run(false));
});

/** Logits of batches of one example of so many tokens, and how often weights were merged for them. */
async function sweeps(tokens: readonly number[], width: number, blockwise?: boolean) {
  const { dispose, vectors, model } = await family(toyModel({ width }));
  const streamed = vi.spyOn(vectors, "stream");
  const items = tokens.map((count, i): HeadBatch => ({
    head: undefined,
    batch: rowsBatch(
      "classify",
      [{ ids: [i + 1, ...Array<number>(count).fill(0)].slice(0, count), types: [] }],
      [0],
    ),
  }));
  const found: number[][] = [];
  for await (const { item, values, width: classes } of batchLogits(
    { ...whole({ model, vectors }), blockwise },
    items,
  ))
    found.push([items.indexOf(item), classes, values[0]!]);
  dispose();
  return { found, merges: streamed.mock.calls.length };
}

test("by blocks, as many batches as fit into 2²⁸ bytes at a boundary share one merge of each block", async () => {
  // 4 · 2²⁰ bytes a token: 64 tokens fit.
  const width = 2 ** 20;
  expect((await sweeps([32, 32, 32], width, true)).merges).toBe(2 * 2);
  expect((await sweeps([32, 32], width, true)).merges).toBe(2);
  expect((await sweeps([32, 33], width, true)).merges).toBe(2 * 2);
  expect((await sweeps([30, 34, 5, 59], width, true)).merges).toBe(2 * 2);
  expect((await sweeps([90, 90], width, true)).merges, "one alone may be too large").toBe(2 * 2);
  expect((await sweeps([0], width, true)).merges, "one may have no token at all").toBe(2);
  expect((await sweeps([32, 32, 32], width, false)).merges, "the whole model is merged once").toBe(1);
  expect((await sweeps([32, 32, 32], width)).merges, "…and so it is where nobody asks for blocks").toBe(1);
  const { found } = await sweeps([32, 32, 32], width, true);
  expect(found).toEqual([
    [0, 2, 1],
    [1, 2, 2],
    [2, 2, 3],
  ]);
});

test("which rows of a table are merged, all batches are asked", async () => {
  const lookups = vi.fn(() => []);
  const model = toyModel({ tables: new Set(["u"]), lookups });
  const { dispose, vectors } = await family();
  const examples = [toyExample([2, 1], 0), toyExample([2, 1, 0], 0)];
  await evaluateTasks({ ...whole({ model, vectors }), microBatch: 3 }, [tested(examples)], "test");
  expect(lookups.mock.calls).toEqual(
    examples.map(({ rows }) => [expect.objectContaining({ rows }) as unknown]),
  );
  dispose();
});

test("what was merged is gone at the end, where the reader stops, and where a block fails", async () => {
  const { dispose, vectors, model } = await family();
  const items = [1, 2, 3].map((x): HeadBatch => ({
    head: undefined,
    batch: rowsBatch("classify", [{ ids: [x, 1], types: [] }], [0]),
  }));
  const before = memory().numTensors;
  for await (const _ of batchLogits(whole({ model, vectors }), items)) expect(_.width).toBe(2);
  expect(memory().numTensors).toBe(before);
  for await (const _ of batchLogits(whole({ model, vectors }), items)) break;
  expect(memory().numTensors).toBe(before);
  const broken = {
    ...model,
    blocks: [
      {
        ...model.blocks[0]!,
        run: () => {
          throw new Error("a block failed");
        },
      },
    ],
  };
  await expect(batchLogits(whole({ model: broken, vectors }), items).next()).rejects.toThrow(
    "a block failed",
  );
  expect(memory().numTensors).toBe(before);
  dispose();
});

test("a tally adds up: what was answered, what is lost, and over how many", () => {
  const sum = { ...emptyTally(), loss: 2, over: 3 };
  const rows = [1, 2].map((id) => ({ ids: [id], types: [] }));
  const batch = rowsBatch("classify", rows, [1, 0]);
  tally(sum, batch, { values: Float32Array.of(0, 0, 1, 1, 1, 1), width: 3 });
  expect(sum.answered).toEqual([
    { example: batch.examples[0], answer: 2 },
    { example: batch.examples[1], answer: 0 },
  ]);
  expect(sum.over).toBe(5);
  expect(sum.loss).toBeCloseTo(2 + Math.log(2 * Math.exp(0) + Math.E) + Math.log(3), 6);
});

test("texts to be said are lost token by token, and none is answered before it is heard", () => {
  const sum = { ...emptyTally(), loss: 1, over: 1 };
  const row = (targets: number[]) => ({ ids: [1], types: [], targets });
  const batch = rowsBatch("generate", [row([5, 6]), row([7])], [0, 0]);
  tally(sum, batch, { values: Float32Array.of(-3, -4), width: 1 });
  expect(sum).toEqual({ ...emptyTally(), loss: 8, over: 4 });
});

/** Says the number of the larger of a row's two numbers; then it reads [1, 2], and says 1, which ends a text. */
const speaking = (): Model => {
  const model = toyModel();
  return {
    ...model,
    generation: {
      firstBlock: 0,
      ends: [1],
      nextBatch: (_, tokens) => model.prepare(tokens.map(() => ({ ids: [1, 2], types: [] }))),
      cachedRows: (batch) => batch as never,
    },
  };
};

test("of texts to be said, those are right that were said word for word", async () => {
  const model = speaking();
  const asked = (ids: readonly number[], ...answers: string[]): EncodedExample => ({
    kind: "generate",
    rows: [{ ids, types: [], targets: [0, 1, 1] }],
    label: 0,
    length: 5,
    answers,
  });
  const text = (ids: readonly number[]) => `said ${ids.join(" ")}`;
  const examples = [
    asked([-2, -3], "said", "said 0"),
    asked([-4, -3], "said 0"),
    asked([-2, -3], "nothing"),
    asked([-4, -1], "said"),
  ];
  const place = { model };
  const [score, other] = await scoresOf(
    [tested(examples, { kind: "generate", generation: { most: 1, text } }), tested([toyExample([2, 1], 0)])],
    { model, place },
  );
  expect(score!.accuracy).toBe(0.5);
  expect(score!.n).toBe(4);
  // All scores over all tokens that were to be said.
  expect(score!.loss).toBeCloseTo((5 + 7 + 5 + 5) / (4 * 3), 6);
  expect(other!.accuracy).toBe(1);
  // It would go on if it were not stopped.
  const longer = { ...model, generation: { ...model.generation!, ends: [] } };
  const [two] = await scoresOf(
    [tested([asked([-2, -3], "said 0 1")], { kind: "generate", generation: { most: 2, text } })],
    {
      model: longer,
      place: { model: longer },
    },
  );
  expect(two!.accuracy).toBe(1);
});
