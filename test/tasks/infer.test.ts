import { execFileSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { inferTask } from "../../src/tasks/infer.js";
import { temporaryFolder } from "../helpers.js";

const data = await temporaryFolder();

/** Writes a task's files: rows by split, as JSON lines. */
async function put(id: string, rows: Readonly<Record<string, readonly object[]>>): Promise<void> {
  await mkdir(join(data, id), { recursive: true });
  for (const [split, of] of Object.entries(rows))
    await writeFile(join(data, id, `${split}.jsonl`), of.map((row) => `${JSON.stringify(row)}\n`).join(""));
}

await put("mood", {
  validation: [{ text: "x", label: "sad" }],
  test: [
    { text: "y", label: "glad" },
    { text: "z", label: "sad" },
  ],
});
await put("pairs", { test: [{ premise: "x", hypothesis: "y", label: 2 }] });
await put("asked", { test: [{ question: "q", passage: "p", answer: true }] });
await put("endings", { test: [{ premise: "x", choices: ["a", "b"], label: 1 }] });
await put("said", { test: [{ question: "x", answers: { text: ["a"] } }] });
await put("alike", { test: [{ text: "x", label: "same" }] });
await put("many", { test: [{ text: "x", label: 99_999_999_999 }] });
await put("stars", { test: [{ text: "x", label: 1.5 }] });
await put("many tags", {
  test: [
    { text: "x", labels: ["b"] },
    { text: "y", labels: ["a", "b"] },
  ],
});
await put("entities", { test: [{ tokens: ["x", "y"], ner_tags: ["B-X", "O"] }] });
await put("spans", { test: [{ question: "q", context: "c", answers: { text: ["c"], answer_start: [0] } }] });
await put("vectors", {
  test: [
    { text: "x", labels: [0, 0, 1, 0] },
    { text: "y", labels: [1, 0, 0, 0] },
  ],
});
await put("odd", { test: [{ body: "x", label: 1 }] });

const names = (...labels: string[]) => ({ id2label: Object.fromEntries(labels.map((name, i) => [i, name])) });

test.each([
  [
    "mood",
    undefined,
    { kind: "single", labels: ["glad", "sad"] },
    /text from "text"; 2 labels \(glad, sad\), by the data/,
  ],
  ["mood", names("sad", "glad"), { kind: "single", labels: ["sad", "glad"] }, /by its expert's id2label/],
  ["pairs", undefined, { kind: "pair", labels: ["0", "1", "2"] }, /"premise" with "hypothesis"/],
  [
    "pairs",
    names("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"),
    { kind: "pair", labels: ["0", "1", "2", "3"] },
    /outputs/,
  ],
  ["asked", names("no", "yes"), { kind: "pair", labels: ["no", "yes"] }, /"question" with "passage"/],
  ["endings", undefined, { kind: "choice", labels: null }, /a choice/],
  [
    "endings",
    { architectures: ["BertForMultipleChoice"], ...names("LABEL_0") },
    { kind: "choice", labels: null },
    /a choice/,
  ],
  ["pairs", names("LABEL_0"), { kind: "regression" }, /"premise" with "hypothesis".*a number, by its expert/],
  ["pairs", { num_labels: 1 }, { kind: "regression" }, /a number/],
  ["stars", undefined, { kind: "regression", metrics: ["pearson", "spearman"] }, /a number, by the data/],
  [
    "mood",
    { problem_type: "multi_label_classification", ...names("sad", "glad", "so") },
    { kind: "multi-label", labels: ["sad", "glad", "so"] },
    /any of 3 labels/,
  ],
  [
    "many tags",
    undefined,
    { kind: "multi-label", labels: ["a", "b"] },
    /any of 2 labels \(a, b\), by the data/,
  ],
  ["vectors", undefined, { kind: "multi-label", labels: ["0", "1", "2", "3"] }, /any of 4 labels/],
  [
    "entities",
    undefined,
    { kind: "tokens", labels: ["B-X", "O"], metrics: ["entity-f1", "accuracy"] },
    /words with a class each, by its columns; 2 labels/,
  ],
  [
    "entities",
    { architectures: ["BertForTokenClassification"], ...names("O", "B-X", "I-X") },
    { kind: "tokens", labels: ["O", "B-X", "I-X"] },
    /by its expert's config/,
  ],
  [
    "spans",
    undefined,
    { kind: "span", labels: null, metrics: ["span-f1", "exact-match"] },
    /a part of a text/,
  ],
  ["spans", { architectures: ["LlamaForCausalLM"] }, { kind: "generate" }, /a text to be said/],
  ["said", { architectures: ["BertForQuestionAnswering"] }, { kind: "span" }, /by its expert's config/],
  ["said", undefined, { kind: "generate", labels: null }, /a text to be said/],
  [
    "mood",
    { model_type: "vit", image_size: 8, ...names("cat", "dog") },
    { kind: "image", labels: ["cat", "dog"] },
    /pictures of 2 classes/,
  ],
] as const)("%s with %j", async (id, config, expected, told) => {
  const found = await inferTask({ id, data, config });
  expect(found.task).toMatchObject({ id, ...expected });
  expect(found.told).toMatch(told);
});

test.each([
  [
    "mood",
    names("LABEL_0", "LABEL_1"),
    /its labels are words \(.*\), and its expert does not say in what order its outputs are: .*"labels": /,
  ],
  ["mood", {}, /its expert does not say in what order its outputs are/],
  ["mood", { architectures: ["BertForMaskedLM"] }, /fills in masked words.*train-merge merge/],
  ["odd", undefined, /none of its columns \(body, label\) is one of text_a, premise/],
  ["alike", undefined, /^alike: labels: they must be two or more names, or how many there are/],
  ["many", undefined, /^many: labels: they must be two or more names, or how many there are \(2 to 100000\)/],
  ["mood", { image_size: 8 }, /name its classes in the expert's id2label/],
] as const)("%s with %j is refused", async (id, config, message) => {
  await expect(inferTask({ id, data, config })).rejects.toThrow(message);
});

test("what tasks.json says wins, and the rest is found", async () => {
  const said = { labels: ["sad", "glad"], metrics: ["f1-macro" as const] };
  const { task, told } = await inferTask({ id: "mood", data, config: {}, said });
  expect(task).toMatchObject({ kind: "single", labels: ["sad", "glad"], metrics: ["f1-macro"] });
  expect(told).toMatch(/2 labels \(sad, glad\), by tasks.json/);
});

test("of a language model, which says its labels, their order plays no part", async () => {
  const { task } = await inferTask({ id: "mood", data, config: { architectures: ["GPT2LMHeadModel"] } });
  expect(task).toMatchObject({ kind: "single", labels: ["glad", "sad"] });
});

test.skipIf(process.platform === "win32")("a pipe among the data is refused, not waited for", async () => {
  await mkdir(join(data, "piped"));
  execFileSync("mkfifo", [join(data, "piped", "test.jsonl")]);
  await expect(inferTask({ id: "piped", data, config: undefined })).rejects.toThrow(
    /it is a pipe or a device, not a file/,
  );
});
