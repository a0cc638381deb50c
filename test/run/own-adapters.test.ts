import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { finetune } from "../../src/finetune/finetune.js";
import { mergeByTraining } from "../../src/index.js";
import { packageFolder } from "../../src/package.js";
import { temporaryFolder } from "../helpers.js";

/** Adapters on a base that fills in masked words, which has no pooler: each brings its own. */
const root = await temporaryFolder();
const base = join(packageFolder, "test", "golden", "kinds", "bert", "base");
const data = join(root, "data");
const expert = (task: string) => join(root, "experts", task);
const tasks = ["mood", "entities"];

const words = ["river", "sea", "cat", "coat", "paid"];
const textOf = (i: number) => [i, i * 3, i + 4].map((n) => words[n % words.length] ?? "").join(" ");
const rows: Record<string, (i: number) => object> = {
  mood: (i) => ({ text: textOf(i), label: textOf(i).includes("cat") ? "glad" : "sad" }),
  entities: (i) => {
    const tokens = textOf(i).split(" ");
    return { tokens, ner_tags: tokens.map((word) => (word === "cat" ? "B-PET" : "O")) };
  },
};

const configOf = async (folder: string, file: string) =>
  JSON.parse(await readFile(join(folder, file), "utf8")) as Record<string, unknown>;

async function tensorsOf(folder: string): Promise<string[]> {
  const file = await openSafetensors(join(folder, "adapter_model.safetensors"));
  await file.close();
  return [...file.entries.keys()];
}

const hooks = { note() {}, progress() {}, step() {}, stopping: () => false };

const merge = (out: string) =>
  mergeByTraining({
    tasks,
    base,
    experts: tasks.map((task) => `${task}=${expert(task)}`),
    data,
    out: join(root, out),
    steps: 2,
    backend: "wasm",
    overwrite: true,
  });

beforeAll(async () => {
  for (const [task, row] of Object.entries(rows)) {
    await mkdir(join(data, task), { recursive: true });
    for (const [split, count] of [
      ["train", 16],
      ["validation", 8],
      ["test", 6],
    ] as const) {
      const lines = Array.from({ length: count }, (_, i) => `${JSON.stringify(row(i))}\n`);
      await writeFile(join(data, task, `${split}.jsonl`), lines.join(""));
    }
    await finetune(
      {
        base,
        tasks: [task],
        data,
        out: expert(task),
        how: "lora",
        rank: 2,
        alpha: 4,
        epochs: 1,
        lr: 0.01,
        weightDecay: 0,
        batchSize: 8,
        microBatch: 8,
        maxLength: 32,
        seed: 0,
        backend: "wasm",
        resume: false,
      },
      hooks,
    );
  }
});

const pooler = ["base_model.model.bert.pooler.dense.weight", "base_model.model.bert.pooler.dense.bias"];

test("a fine-tuned adapter is named as its class, and brings the pooler that the base lacks", async () => {
  const names = await tensorsOf(expert("mood"));
  expect(names).toEqual(expect.arrayContaining([...pooler, "base_model.model.classifier.weight"]));
  expect(names.filter((name) => !/^base_model\.model\.(bert|classifier)\./.test(name))).toEqual([]);
  expect(await configOf(expert("mood"), "adapter_config.json")).toMatchObject({
    task_type: "SEQ_CLS",
    modules_to_save: expect.arrayContaining(["pooler", "classifier"]),
  });
  const tagging = await tensorsOf(expert("entities"));
  expect(tagging, "words are classed without a pooler").not.toEqual(expect.arrayContaining(pooler));
});

test("of a merge of adapters, each task's folder brings its pooler and the names of its labels", async () => {
  await merge("out");
  const mood = join(root, "out", "tasks", "mood");
  expect(await tensorsOf(mood)).toEqual(expect.arrayContaining(pooler));
  expect(await configOf(mood, "adapter_config.json")).toMatchObject({
    modules_to_save: expect.arrayContaining(["pooler", "classifier"]),
  });
  expect(await configOf(mood, "config.json")).toMatchObject({ id2label: { 0: "glad", 1: "sad" } });
  const entities = join(root, "out", "tasks", "entities");
  expect(await tensorsOf(entities)).not.toEqual(expect.arrayContaining(pooler));
  expect(await configOf(entities, "adapter_config.json")).toMatchObject({ task_type: "TOKEN_CLS" });
});

test("adapters as PEFT writes them, without a config: labels by tasks.json, or refused", async () => {
  for (const task of tasks) await rm(join(expert(task), "config.json"));
  await expect(merge("none")).rejects.toThrow(
    /^mood: its labels are words \(.*\), and its expert does not say in what order its outputs are/,
  );
  const labels = { mood: ["glad", "sad"], entities: ["B-PET", "O"] };
  await writeFile(
    join(data, "tasks.json"),
    JSON.stringify({
      mood: { kind: "single", labels: labels.mood },
      entities: { kind: "tokens", labels: labels.entities },
    }),
  );
  await merge("listed");
  const config = await configOf(join(root, "listed", "tasks", "mood"), "config.json");
  expect(config).toMatchObject({ id2label: { 0: "glad", 1: "sad" } });
  expect(config["architectures"]).toEqual(["BertForSequenceClassification"]);
});
