import { existsSync } from "node:fs";
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import seedrandom from "seedrandom";
import { expect, test } from "vitest";
import { writeSafetensors } from "../../src/checkpoint/write.js";
import { llama } from "../../src/models/llama.js";
import { packageFolder } from "../../src/package.js";
import { elements, fromFloat32 } from "../../src/tensor/dtype.js";
import { expectSameBytes, golden, temporaryFolder } from "../helpers.js";
import { cliIn, json } from "./cli.js";

/** Conversations from fine-tuning to the merged model, on a base that has no chat template. */
const folder = await temporaryFolder();
const cli = cliIn(folder);
const quick = ["--backend", "wasm", "--batch-size", "4", "--data", "data", "--base", "base"];
const tasks = {
  manners: ["Hello there!", "who are you? i am a helper", "i am"],
  sums: ["two and two", "four", "is it"],
};

const config = {
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 256,
  vocab_size: 400,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: true,
  eos_token_id: 2,
};
const random = seedrandom("chats");
const names = [...llama.build(config).parameters].map(([name, shape]) => ({
  name: `model.${name}`,
  dtype: "F32" as const,
  shape: [...shape],
  bytes: () =>
    Promise.resolve(
      fromFloat32(
        Float32Array.from({ length: elements(shape) }, () =>
          name.includes("norm") ? 1 : (random() - 0.5) / 2,
        ),
        "F32",
      ),
    ),
}));
await cp(join(packageFolder, "test", "golden", "chat", "bytes"), join(folder, "base"), { recursive: true });
await writeFile(join(folder, "base", "config.json"), JSON.stringify(config));
await writeSafetensors(join(folder, "base", "model.safetensors"), names);
// A speech of untrained models would go on and on.
const spoken = Object.fromEntries(Object.keys(tasks).map((task) => [task, { max_new_tokens: 12 }]));
await mkdir(join(folder, "data"));
await writeFile(join(folder, "data", "tasks.json"), JSON.stringify(spoken));
const { templates } = golden<{ templates: Record<string, { plain: string }> }>("chat/chat");
await writeFile(join(folder, "signs.jinja"), templates["signs"]!.plain);
for (const [task, texts] of Object.entries(tasks)) {
  await mkdir(join(folder, "data", task), { recursive: true });
  const row = (i: number) => ({
    messages: Array.from({ length: 2 * (1 + (i % 3)) }, (_, n) => ({
      role: n % 2 === 0 ? "user" : "assistant",
      content: texts[(n + i) % texts.length]!,
    })),
  });
  const lines = Array.from({ length: 12 }, (_, i) => `${JSON.stringify(row(i))}\n`).join("");
  for (const split of ["train", "validation", "test"])
    await writeFile(join(folder, "data", task, `${split}.jsonl`), lines);
}

test("without a template it says which option names one", async () => {
  const { code, stderr } = await cli(
    "finetune",
    "--task",
    "sums",
    ...quick,
    "--epochs",
    "1",
    "--out",
    "none",
  );
  expect(code).toBe(1);
  expect(stderr).toMatch(/base: there is no chat template .*; name one with --chat-template/);
  const typo = await cli(
    "finetune",
    "--task",
    "sums",
    ...quick,
    "--chat-template",
    "chatmk",
    "--out",
    "none",
  );
  expect(typo.stderr).toContain('(did you mean "chatml"?)');
  expect(existsSync(join(folder, "none"))).toBe(false);
});

test("experts keep the template that they were trained with, and the merge has it and answers in it", async () => {
  for (const task of Object.keys(tasks)) {
    const { code, stderr } = await cli(
      ..."finetune --epochs 12 --lr 2e-2 --chat-template signs.jinja".split(" "),
      ...quick,
      ..."--task TASK --out experts/TASK".replaceAll("TASK", task).split(" "),
    );
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stderr).toContain(`${task}: conversations, by their columns`);
    const template = await readFile(join(folder, "experts", task, "chat_template.jinja"), "utf8");
    expect(template.trim()).toBe(templates["signs"]!.plain.trim());
  }
  const merged = await cli(
    ..."train --tasks manners,sums --experts experts --steps 3 --val-per-task 8 --out out".split(" "),
    ...quick,
  );
  expect({ ...merged, code: merged.code }).toMatchObject({ code: 0 });
  expect((await readFile(join(folder, "out", "chat_template.jinja"), "utf8")).trim()).toBe(
    templates["signs"]!.plain.trim(),
  );
  expect(await json(join(folder, "out", "tokenizer_config.json"))).toHaveProperty("chat_template");
  const { rows } = await json<{ rows: { method: string; task: string; metric: string; value: number }[] }>(
    join(folder, "out", "results.json"),
  );
  const own = rows.filter(({ method }) => method === "individual");
  expect(own.map(({ metric }) => metric)).toEqual(["rougeL", "rougeL"]);
  // They were trained on what they are asked: most of it is said again.
  expect(Math.min(...own.map(({ value }) => value))).toBeGreaterThan(0.5);

  const again = await cli("evaluate", "out", "--show", "1", "--json");
  expect(again.code).toBe(0);
  const told = JSON.parse(again.stdout) as {
    rows: { value: number }[];
    said: { prompt: string; right: string[] }[];
  };
  const supermerge = rows.filter(({ method }) => method === "supermerge").map(({ value }) => value);
  expect(told.rows.map(({ value }) => value)).toEqual(supermerge);
  expect(told.said[0]!.prompt).toMatch(/assistant\n$/);
  expect(tasks.manners).toContain(told.said[0]!.right[0]);
});

test("a merge learns what the experts say, without labels; asked again, they are not asked again", async () => {
  const run = (out: string, ...more: string[]) =>
    cli(
      ..."train --tasks manners,sums --experts experts --loss distillation --steps 3 --val-per-task 6".split(
        " ",
      ),
      ...quick,
      ...more,
      "--out",
      out,
    );
  const first = await run("learned");
  expect({ ...first, code: first.code }).toMatchObject({ code: 0 });
  expect(first.stderr).toMatch(
    /manners: its expert speaks of 6 texts, \d+ tokens; the 64 likeliest hold \d+\.\d+ %/,
  );
  const again = await run("again");
  for (const file of ["coefficients.csv", "model.safetensors"])
    await expectSameBytes(join(folder, "learned", file), join(folder, "again", file));
  expect(again.code).toBe(0);
  const losses = await readTraining("learned");
  expect(losses.at(-1)!).toBeLessThan(losses[0]!);

  const given = await run(
    "given",
    ..."--distil-on given --divergence reverse --temperature 2 --teacher-tokens 8".split(" "),
  );
  expect(given.stderr).toMatch(/sums: its expert speaks of 6 texts, \d+ tokens; the 8 likeliest/);
  expect(given.code).toBe(0);
  const pulled = await run("pulled", ..."--pull 100 --steps 6".split(" "));
  expect(pulled.code).toBe(0);
  const { entries } = await json<{ entries: { coefficient: number }[] }>(
    join(folder, "pulled", "coefficients.json"),
  );
  expect(Math.max(...entries.map(({ coefficient }) => Math.abs(coefficient - 0.3)))).toBeLessThan(0.1);
});

async function readTraining(out: string): Promise<number[]> {
  const lines = (await readFile(join(folder, out, "training.jsonl"), "utf8")).trim().split("\n");
  return lines.flatMap((line) => (JSON.parse(line) as { loss?: number }).loss ?? []);
}

test("other methods are measured in the experts' template, too", async () => {
  const { code, stderr } = await cli(
    ..."compare --tasks manners,sums --experts experts --methods average --no-search --val-per-task 4 --keep".split(
      " ",
    ),
    ...quick,
    "--out",
    "compared",
  );
  expect({ code, stderr }).toMatchObject({ code: 0 });
  const kept = await readFile(join(folder, "compared", "models", "average", "chat_template.jinja"), "utf8");
  expect(kept.trim()).toBe(templates["signs"]!.plain.trim());
});

test("prompts that nobody has answered are enough, where experts say the rest", async () => {
  for (const task of Object.keys(tasks)) {
    await mkdir(join(folder, "asked", task), { recursive: true });
    await cp(join(folder, "data", task, "test.jsonl"), join(folder, "asked", task, "test.jsonl"));
    const lines = (await readFile(join(folder, "data", task, "validation.jsonl"), "utf8")).trim().split("\n");
    const prompts = lines.map((line) => {
      const { messages } = JSON.parse(line) as { messages: object[] };
      return `${JSON.stringify({ messages: messages.slice(0, 1) })}\n`;
    });
    await writeFile(join(folder, "asked", task, "validation.jsonl"), prompts.join(""));
  }
  await cp(join(folder, "data", "tasks.json"), join(folder, "asked", "tasks.json"));
  const given = [
    ..."train --tasks manners,sums --experts experts --steps 3 --val-per-task 4".split(" "),
    ...quick,
  ];
  const asked = given.map((one) => (one === "data" ? "asked" : one));
  const { code, stderr } = await cli(...asked, "--loss", "distillation", "--out", "unlabelled");
  expect({ code, stderr }).toMatchObject({ code: 0 });
  expect(stderr).toMatch(/manners: 4 validation examples .*; without answers/);
  expect(stderr).toMatch(/λ = 0.3: there are no answers to choose it by/);
  const losses = await readTraining("unlabelled");
  expect(losses).toHaveLength(3);
  expect(losses.at(-1)!).toBeLessThan(losses[0]!);
});

test("what is too long to be learned from is counted, and other templates of the experts are refused", async () => {
  const short = await cli(
    ..."train --tasks manners,sums --experts experts --steps 1 --max-length 15 --val-per-task 12 --out short".split(
      " ",
    ),
    ...quick,
  );
  expect(short.stderr).toMatch(/manners: \d+ validation examples .*cut before anything is said/);
  await writeFile(join(folder, "experts", "sums", "chat_template.jinja"), "{{ messages[0].content }}");
  const { code, stderr } = await cli(
    ..."train --tasks manners,sums --experts experts --out other".split(" "),
    ...quick,
  );
  expect(code).toBe(1);
  expect(stderr).toMatch(/experts\/manners and .*experts\/sums have different chat templates; name the one/);
  await rm(join(folder, "other"), { recursive: true, force: true });
});
