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
await put("odd", { test: [{ body: "x", label: 1 }] });

const names = (...labels: string[]) => ({ id2label: Object.fromEntries(labels.map((name, i) => [i, name])) });

test.each([
  [
    "mood",
    undefined,
    { kind: "single", labels: ["glad", "sad"] },
    /"text".*2 labels \(glad, sad\), by the data/,
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
  ["said", undefined, { kind: "generate", labels: null }, /a text to be said/],
  [
    "mood",
    { model_type: "vit", image_size: 8, ...names("cat", "dog") },
    { kind: "image", labels: ["cat", "dog"] },
    /pictures of 2 classes/,
  ],
] as const)("%s with %j", async (id, config, expected, told) => {
  const found = await inferTask(id, data, config);
  expect(found.task).toMatchObject({ id, ...expected });
  expect(found.told).toMatch(told);
});

test.each([
  [
    "mood",
    names("LABEL_0", "LABEL_1"),
    /its labels are words \(.*\), and its expert's config.json does not name/,
  ],
  ["mood", { problem_type: "regression" }, /answers with a number, which is neither trained on nor measured/],
  ["mood", { problem_type: "multi_label_classification" }, /answers with several labels/],
  [
    "mood",
    { architectures: ["BertForTokenClassification"] },
    /answers with classes of tokens.*train-merge merge/,
  ],
  ["odd", undefined, /none of its columns \(body, label\) is one of text_a, premise/],
  ["pairs", names("LABEL_0"), /answers with a number, which is neither trained on nor measured/],
  ["pairs", { num_labels: 1 }, /answers with a number/],
  ["alike", undefined, /^alike: labels: they must be two or more names, or how many there are/],
  ["many", undefined, /^many: labels: they must be two or more names, or how many there are \(2 to 100000\)/],
  ["mood", { image_size: 8, ...names("cat") }, /answers with a number/],
  ["mood", { image_size: 8 }, /name its classes in the expert's id2label/],
] as const)("%s with %j is refused", async (id, config, message) => {
  await expect(inferTask(id, data, config)).rejects.toThrow(message);
});

test.skipIf(process.platform === "win32")("a pipe among the data is refused, not waited for", async () => {
  await mkdir(join(data, "piped"));
  execFileSync("mkfifo", [join(data, "piped", "test.jsonl")]);
  await expect(inferTask("piped", data, undefined)).rejects.toThrow(/it is a pipe or a device, not a file/);
});
