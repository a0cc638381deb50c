import { existsSync } from "node:fs";
import { cp, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { parse } from "yaml";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { loadSettings, mergeByTraining, addExpert, evaluateFolder } from "../../src/index.js";
import { packageFolder } from "../../src/package.js";
import { explainMemory } from "../../src/run/explain.js";
import { configText } from "../../src/run/init.js";
import { exportTask } from "../../src/run/task-models.js";
import { temporaryFolder } from "../helpers.js";

/** Own models of every kind of head, on a base that fills in masked words, from the command to what is published. */
const root = await temporaryFolder();
const models = join(root, "models");
const data = join(root, "data");
const out = join(root, "out");
const tasks = ["stars", "topics", "entities", "places"];
const marks = ["art", "food", "money", "animals"];

const words = ["river", "Elbe", "sea", "cat", "coat", "paid"];
const text = (i: number) => [i, i + 2, i * 3, i + 4].map((n) => words[n % words.length]).join(" ");
const rows: Record<string, (i: number) => object> = {
  stars: (i) => ({ body: text(i), score: i / 2 }),
  topics: (i) => ({ text: text(i), labels: marks.filter((_, m) => (i >> m) % 2 === 1) }),
  entities: (i) => ({
    tokens: text(i).split(" "),
    ner_tags: text(i)
      .split(" ")
      .map((word) => Number(word === "cat")),
  }),
  places: (i) => ({
    question: "Where?",
    context: text(i),
    answers: { text: [text(i).split(" ")[0]], answer_start: [0] },
  }),
};
const columns = { "stars.text": "body" };
const given = {
  tasks,
  base: join(models, "base"),
  experts: [models],
  data,
  columns,
  out,
  steps: 2,
  backend: "wasm",
} as const;

beforeAll(async () => {
  await cp(join(packageFolder, "test", "golden", "kinds", "bert"), models, { recursive: true });
  await writeFile(
    join(models, "base", "README.md"),
    "---\nlicense: mit\nlanguage: en\ndatasets: [wiki]\n---\n# base",
  );
  await writeFile(join(models, "stars", "README.md"), "---\nlicense: apache-2.0\nlanguage: [en, de]\n---\n");
  for (const [task, row] of Object.entries(rows)) {
    await mkdir(join(data, task), { recursive: true });
    for (const [split, from, count] of [
      ["validation", 0, 8],
      ["test", 8, 6],
    ] as const) {
      const lines = Array.from({ length: count }, (_, i) => `${JSON.stringify(row(from + i))}\n`);
      await writeFile(join(data, task, `${split}.jsonl`), lines.join(""));
    }
  }
  const notes: string[] = [];
  await mergeByTraining(given, { note: (line) => notes.push(line) });
  expect(notes).toContain("pooler.dense is each task's own, as its head is: not every model has one");
});

const front = async (folder: string): Promise<Record<string, unknown>> => {
  const card = await readFile(join(folder, "README.md"), "utf8");
  return parse(/^---\n([^]*?)\n---/.exec(card)![1]!) as Record<string, unknown>;
};

test("each task's folder is a whole model: the merge's weights, linked, its own head and labels", async () => {
  const merged = await stat(join(out, "model.safetensors"));
  const heads: Record<string, string[]> = {
    stars: ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"],
    topics: ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"],
    entities: ["classifier.weight", "classifier.bias"],
    places: ["qa_outputs.weight", "qa_outputs.bias"],
  };
  for (const task of tasks) {
    const folder = join(out, "tasks", task);
    expect((await stat(join(folder, "model-00001-of-00002.safetensors"))).ino).toBe(merged.ino);
    const own = await openSafetensors(join(folder, "model-00002-of-00002.safetensors"));
    expect([...own.entries.keys()].sort()).toEqual(heads[task]!.sort());
    await own.close();
    const index = JSON.parse(await readFile(join(folder, "model.safetensors.index.json"), "utf8")) as {
      weight_map: Record<string, string>;
    };
    expect(Object.keys(index.weight_map)).toEqual(expect.arrayContaining(heads[task]!));
    expect(existsSync(join(folder, "tokenizer.json"))).toBe(true);
  }
  const config = JSON.parse(await readFile(join(out, "tasks", "topics", "config.json"), "utf8")) as object;
  expect(config).toMatchObject({
    architectures: ["BertForSequenceClassification"],
    problem_type: "multi_label_classification",
    id2label: { 0: "art", 3: "animals" },
  });
});

test("a task's model is written whole into a folder of its own, and is not written over", async () => {
  const to = join(root, "entities-model");
  await exportTask(out, "entities", to);
  expect((await readdir(to)).sort()).toEqual([
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  const whole = await openSafetensors(join(to, "model.safetensors"));
  const names = [...whole.entries.keys()];
  expect(
    names.filter((name) => !/^(bert|classifier)\./.test(name)),
    "no output layer of the base's",
  ).toEqual([]);
  await whole.close();
  await expect(exportTask(out, "entities", to)).rejects.toThrow(/the folder is not empty/);
  await expect(exportTask(out, "nothing", join(root, "x"))).rejects.toThrow(
    /no head of nothing; it has entities, places/,
  );
});

test("the card says what the models say of themselves, and of results what was measured", async () => {
  const found = await front(out);
  expect(found).toMatchObject({
    library_name: "transformers",
    license: "other",
    language: ["en", "de"],
    datasets: ["wiki"],
    pipeline_tag: "text-classification",
    tags: ["merge", "train-merge", "supermerge"],
  });
  const [{ results }] = found["model-index"] as [
    { results: { task: { name: string }; metrics: { type: string }[] }[] },
  ];
  expect(results.map(({ task, metrics }) => [task.name, ...metrics.map(({ type }) => type)])).toEqual([
    ["stars", "pearson", "spearman"],
    ["topics", "f1-micro", "f1-macro", "exact-match"],
    ["entities", "entity-f1", "accuracy"],
    ["places", "span-f1", "exact-match"],
  ]);
  const card = await readFile(join(out, "README.md"), "utf8");
  expect(card).toMatch(/licences differ \(base: mit, stars: apache-2\.0\)/);
  expect(card).toMatch(/pipeline\("text-classification", model=f"tasks\/\{task\}"\)/);
});

test("no file names a place of this machine", async () => {
  for (const entry of await readdir(out, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || /\.(safetensors|png)$/.test(entry.name)) continue;
    const path = join(entry.parentPath, entry.name);
    const content = await readFile(path, "utf8");
    expect(content.includes(root), path).toBe(false);
  }
});

test("it is measured again from its folder: answers in order, wrong ones to read, classes", async () => {
  const found = await evaluateFolder({ folder: out, show: 2 });
  expect(found.answers["stars"]).toHaveLength(6);
  expect(found.answers["entities"]!.every((tags) => Array.isArray(tags) && tags.length === 4)).toBe(true);
  expect(found.classes["topics"]!.map(({ name }) => name)).toEqual(marks);
  const stars = found.said.filter(({ task }) => task === "stars");
  const off = stars.map(({ said, right }) => Math.abs(Number(said) - Number(right[0])));
  expect(off[0], "the furthest off first").toBeGreaterThanOrEqual(off[1]!);
  const results = JSON.parse(await readFile(join(out, "results.json"), "utf8")) as {
    rows: { method: string; task: string; value: number }[];
  };
  for (const { task, value } of found.rows)
    expect(results.rows).toContainEqual(expect.objectContaining({ method: "supermerge", task, value }));
});

test("an expert is added to such a merge, its pooler with it", async () => {
  const to = join(root, "three");
  await mergeByTraining({ ...given, tasks: tasks.slice(1), out: to });
  const { rows } = await addExpert(
    { expert: join(models, "stars"), to, task: "stars" },
    { steps: 1, backend: "wasm", out: join(root, "four") },
  );
  expect(new Set(rows.map(({ task }) => task))).toEqual(new Set(tasks));
});

test("a config is written from what was found", async () => {
  const written = await configText({ base: given.base, experts: [models], data, columns });
  const config = parse(written) as { tasks: string[]; experts: string[] };
  expect(config.tasks.sort()).toEqual([...tasks].sort());
  expect(config.experts).toContain(`stars=${join(models, "stars")}`);
  expect(written).toMatch(/# stars: text from "body"; a number, by its expert's config; measured by pearson/);
  await expect(configText({ base: given.base, data })).rejects.toThrow(/name the experts with --experts/);
});

test("its memory is planned, without the pooler that the base has not", async () => {
  const settings = await loadSettings({ ...given, tasks });
  const { what, predictions } = await explainMemory(settings);
  expect(what).toMatch(/4 experts$/);
  expect(predictions.length).toBeGreaterThan(0);
});

test("what a merge would refuse is refused before a config is written", async () => {
  const named = (...experts: string[]) => configText({ base: given.base, experts, data, columns });
  const at = (expert: string) => join(models, expert);
  await expect(named(`stars=${at("entities")}`), "an expert of another kind").rejects.toThrow(
    /a task of words needs "tokens"/,
  );
  await expect(named(at("stars"), at("entities"))).rejects.toThrow(
    /^--experts: name the task of each: task=FOLDER; .* has data of entities, places, stars, topics$/,
  );
  await expect(named(`star=${at("stars")}`)).rejects.toThrow(/the experts are called star/);
  await expect(configText({ experts: [models], base: given.base, data: join(root, "none") })).rejects.toThrow(
    /none: there is no such data folder/,
  );
  const bad = join(root, "bad");
  await cp(data, bad, { recursive: true });
  await writeFile(join(bad, "topics", "test.jsonl"), '{"text": "x", "labels": ["musik"]}\n');
  await expect(configText({ base: given.base, experts: [models], data: bad, columns })).rejects.toThrow(
    /test.jsonl:1: unknown label "musik"/,
  );
});
