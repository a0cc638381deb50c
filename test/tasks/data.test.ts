import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  bucketed,
  choicesOf,
  batchLabels,
  trainingBatches,
  type EncodedExample,
} from "../../src/tasks/batches.js";
import type { Example } from "../../src/tasks/examples.js";
import { readExamples } from "../../src/tasks/files.js";
import type { Task } from "../../src/tasks/registry.js";
import { loadTasks, pickTasks } from "../../src/tasks/registry.js";
import { loadTaskData, trainingData } from "../../src/tasks/split.js";
import { temporaryFolder } from "../helpers.js";

/** Without the rows as they stood in the file. */
const plain = (examples: readonly Example[]) => examples.map(({ texts, label }) => ({ texts, label }));

const folder = await temporaryFolder();
const registry = await loadTasks();
const task = (id: string): Task => registry.get(id)!;
async function file(path: string, content: string): Promise<string> {
  const full = join(folder, path);
  await mkdir(join(full, ".."), { recursive: true });
  await writeFile(full, content);
  return full;
}

test("SuperGLUE's RTE, CB and COPA as published", async () => {
  const rte = await file(
    "p/rte.jsonl",
    '{"premise":"A.","hypothesis":"B.","label":"not_entailment","idx":0}\n',
  );
  expect(plain(await readExamples(rte, task("rte")))).toEqual([{ texts: [["A.", "B."]], label: 1 }]);
  const cb = await file("p/cb.jsonl", '{"premise":"A.","hypothesis":"B.","label":"neutral","idx":0}\n');
  expect(plain(await readExamples(cb, task("cb")))).toEqual([{ texts: [["A.", "B."]], label: 2 }]);
  const copa = await file(
    "p/copa.jsonl",
    '{"premise":"It fell.","choice1":"It broke.","choice2":"It sang.","question":"effect","label":0,"idx":0}\n',
  );
  const asked = "It fell. What happened as a result?";
  expect(plain(await readExamples(copa, task("copa")))).toEqual([
    {
      texts: [
        [asked, "It broke."],
        [asked, "It sang."],
      ],
      label: 0,
    },
  ]);
});

test("GLUE's tab-separated files, quotation marks and all", async () => {
  const rte = await file(
    "g/rte.tsv",
    'index\tsentence1\tsentence2\tlabel\n0\tHe said "no.\tHe spoke.\tentailment\n',
  );
  expect(plain(await readExamples(rte, task("rte")))).toEqual([
    { texts: [['He said "no.', "He spoke."]], label: 0 },
  ]);
  const sst2 = await file("g/sst2.tsv", "sentence\tlabel\na fine film\t1\n");
  expect(plain(await readExamples(sst2, task("sst2")))).toEqual([{ texts: [["a fine film"]], label: 1 }]);
  const cola = await file("g/cola.tsv", "gj04\t1\t\tThey left.\ngj04\t0\t*\tThey leaved left.\n");
  expect((await readExamples(cola, task("cola"))).map(({ label }) => label)).toEqual([1, 0]);
  const mrpc = await file(
    "g/mrpc.txt",
    "\uFEFFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tOne.\tTwo.\n",
  );
  expect(plain(await readExamples(mrpc, task("mrpc")))).toEqual([{ texts: [["One.", "Two."]], label: 1 }]);
  const qnli = await file("g/qnli.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tMe.\tnot_entailment\n");
  expect(plain(await readExamples(qnli, task("qnli")))).toEqual([{ texts: [["Who?", "Me."]], label: 1 }]);
  const csv = await file("g/sst2.csv", 'sentence,label\n"good, I say",positive\n');
  expect(plain(await readExamples(csv, task("sst2")))).toEqual([{ texts: [["good, I say"]], label: 1 }]);
});

test("CoLA's test file has a header, and a file of another program a byte order mark", async () => {
  const cola = await file("h/cola.tsv", "index\tsentence\n0\tThey left.\n");
  expect(plain(await readExamples(cola, task("cola")))).toEqual([]);
  const marked = await file("h/rte.jsonl", '\uFEFF{"text_a":"a","text_b":"b","label":1}\n');
  expect(await readExamples(marked, task("rte"))).toHaveLength(1);
  await expect(readExamples(join(folder, "h"), task("sst2"))).rejects.toThrow(
    /a folder stands where a file was expected/,
  );
});

test.each([
  [
    "half.jsonl",
    '{"text_a":"a","text_b":"b","label":0}\n{"text_a":"a","text_b":"b"}\n',
    /half\.jsonl:2: there is no label, although other rows/,
  ],
  ["space.jsonl", '{"text_a":"a","text_b":"b","label":" "}\n', /unknown label " "/],
  ["empty.jsonl", "", /there are no examples in it/],
  [
    "label.jsonl",
    '{"text_a":"a","text_b":"b","label":0}\n{"text_a":"a","text_b":"b","label":"perhaps"}\n',
    /label\.jsonl:2: unknown label "perhaps" for rte; it takes entailment, not_entailment or 0 to 1/,
  ],
  ["range.jsonl", '{"text_a":"a","text_b":"b","label":2}\n', /unknown label 2/],
  ["json.jsonl", "{oops\n", /json\.jsonl:1: not valid JSON/],
  ["missing.jsonl", '{"text_a":"a","label":0}\n', /missing\.jsonl:1: there is no text_b/],
])("a bad file is refused with its line: %s", async (name, content, message) => {
  await expect(readExamples(await file(`bad/${name}`, content), task("rte"))).rejects.toThrow(message);
});

const lines = (from: number, count: number) =>
  Array.from({ length: count }, (_, i) => `{"text_a":"t${from + i}","text_b":"b","label":${i % 2}}\n`).join(
    "",
  );
const texts = (examples: readonly { texts: readonly (readonly string[])[] }[]) =>
  examples.map((e) => e.texts[0]![0]!);

test("validation is drawn by the seed, and the test split stays out of it", async () => {
  await file("d/rte/validation.jsonl", lines(0, 50));
  await file("d/rte/test.jsonl", lines(100, 20));
  const first = await loadTaskData(join(folder, "d"), task("rte"), { valPerTask: 10, seed: 0 });
  expect(first.validation).toHaveLength(10);
  expect(first.test).toHaveLength(20);
  expect(
    texts((await loadTaskData(join(folder, "d"), task("rte"), { valPerTask: 10, seed: 0 })).validation),
  ).toEqual(texts(first.validation));
  expect(
    texts((await loadTaskData(join(folder, "d"), task("rte"), { valPerTask: 10, seed: 1 })).validation),
  ).not.toEqual(texts(first.validation));
  expect(texts(first.validation).filter((t) => texts(first.test).includes(t))).toEqual([]);
});

test("fine-tuning never sees what merges are tested on", async () => {
  const line = (n: number) => `{"premise":"p${n}","hypothesis":"h","label":"entailment"}\n`;
  const lines = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, i) => line(from + i)).join("");
  const firsts = (examples: readonly Example[]) => new Set(examples.map(({ texts }) => texts[0]![0]));
  // A test file with labels: the validation file chooses.
  for (const [split, [from, to]] of Object.entries({ train: [0, 20], validation: [20, 25], test: [25, 30] }))
    await file(`ft/a/rte/${split}.jsonl`, lines(from!, to!));
  const all = await trainingData(join(folder, "ft/a"), task("rte"), 0);
  expect([all.train.length, all.judge.length]).toEqual([20, 5]);
  // Hidden labels: the development file is the test set, and a tenth of the training examples chooses.
  await file("ft/b/rte/train.jsonl", lines(0, 20));
  await file("ft/b/rte/validation.jsonl", lines(20, 25));
  await file("ft/b/rte/test.jsonl", '{"premise":"x","hypothesis":"y"}\n');
  const hidden = await trainingData(join(folder, "ft/b"), task("rte"), 0);
  expect([hidden.train.length, hidden.judge.length]).toEqual([18, 2]);
  const tested = firsts(
    (await loadTaskData(join(folder, "ft/b"), task("rte"), { valPerTask: 4, seed: 0 })).test,
  );
  expect([...firsts([...hidden.train, ...hidden.judge])].filter((text) => tested.has(text))).toEqual([]);
  await file("ft/c/rte/train.jsonl", lines(0, 20));
  await expect(trainingData(join(folder, "ft/c"), task("rte"), 0)).rejects.toThrow(/a training file alone/);
  await file("ft/d/rte/validation.jsonl", lines(0, 20));
  await expect(trainingData(join(folder, "ft/d"), task("rte"), 0)).rejects.toThrow(
    /there is no training file/,
  );
});

test("with an unlabelled test set, the development set is test and validation comes from train", async () => {
  await file("u/rte/train.jsonl", lines(0, 40));
  await file("u/rte/val.jsonl", lines(100, 12));
  await file("u/rte/test.jsonl", '{"premise":"a","hypothesis":"b","idx":0}\n');
  const data = await loadTaskData(join(folder, "u"), task("rte"), { valPerTask: 8, seed: 0 });
  expect(data.sources.test.name).toMatch(/val\.jsonl$/);
  expect(data.sources.validation.name).toMatch(/train\.jsonl$/);
});

test("a development set alone is cut in two that share nothing", async () => {
  const lines = Array.from({ length: 30 }, (_, i) => `${i}\tt${i}\tb\tentailment\n`);
  await file("o/rte/dev.tsv", `index\tsentence1\tsentence2\tlabel\n${lines.join("")}`);
  const data = await loadTaskData(join(folder, "o"), task("rte"), { valPerTask: 8, seed: 0 });
  expect(new Set([...texts(data.validation), ...texts(data.test)]).size).toBe(30);
  await expect(loadTaskData(join(folder, "o"), task("rte"), { valPerTask: 30, seed: 0 })).rejects.toThrow(
    /leave nothing to test on/,
  );
});

test("an unknown task names the nearest; a missing folder says what is there", async () => {
  expect(() => pickTasks(registry, ["rtee"])).toThrow(/unknown task "rtee" \(did you mean "rte"\?\)/);
  await expect(loadTaskData(join(folder, "d"), task("cb"), { valPerTask: 8, seed: 0 })).rejects.toThrow(
    /no data for task cb; it has rte/,
  );
});

const example = (length: number, label: number, rows = 1): EncodedExample => ({
  kind: rows === 1 ? "classify" : "choose",
  rows: Array.from({ length: rows }, () => ({
    ids: Array(length).fill(label + 5),
    types: Array(length).fill(0),
  })),
  label,
  length,
});

test("batches never mix numbers of choices", () => {
  const examples = [example(3, 0, 2), example(9, 1, 2), example(4, 0, 3), example(5, 1, 2)];
  const batches = bucketed(examples, 2);
  expect(
    batches.map((batch) => [
      batch.rows.length,
      Math.max(...batch.rows.map(({ ids }) => ids.length)),
      choicesOf(batch),
    ]),
  ).toEqual([
    [4, 5, 2],
    [2, 9, 2],
    [3, 4, 3],
  ]);
});

test("training batch n is a function of n; an epoch holds every example once", () => {
  const examples = Array.from({ length: 10 }, (_, i) => example(2 + (i % 4), i));
  const supply = () => trainingBatches("t", examples, 4, 3);
  const [a, b] = [supply(), supply()];
  const epoch = [0, 1, 2].flatMap((step) => batchLabels(a(step)));
  expect([...epoch].sort((x, y) => x - y)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  expect(batchLabels(b(7))).toEqual([3, 4, 5, 6, 7].map((step) => batchLabels(a(step)))[4]);
});
