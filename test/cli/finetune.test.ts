import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { packageFolder } from "../../src/package.js";
import { temporaryFolder } from "../helpers.js";
import { cliIn, contents, json } from "./cli.js";

const folder = await temporaryFolder();
const cli = cliIn(folder);
const quick = ["--lr", "3e-3", "--backend", "wasm", "--batch-size", "8"];

// The test file's examples to train on: this is of the machinery, and no score counts.
for (const task of ["rte", "cb"]) {
  await mkdir(join(folder, "data", task), { recursive: true });
  const lines = (await readFile(join(packageFolder, "data", "mini", task, "test.jsonl"), "utf8"))
    .split("\n")
    .filter(Boolean);
  await writeFile(join(folder, "data", task, "train.jsonl"), `${lines.slice(0, 48).join("\n")}\n`);
  await writeFile(join(folder, "data", task, "validation.jsonl"), `${lines.slice(48, 64).join("\n")}\n`);
  await writeFile(join(folder, "data", task, "test.jsonl"), `${lines.slice(64, 80).join("\n")}\n`);
}

test("experts of every kind are experts to a merge", async () => {
  expect(
    await cli(
      "finetune",
      "--task",
      "rte",
      "--data",
      "data",
      "--epochs",
      "2",
      ...quick,
      "--out",
      "experts/rte",
    ),
  ).toMatchObject({ code: 0 });
  expect(await json(join(folder, "experts", "rte", "config.json"))).toMatchObject({
    architectures: ["BertForSequenceClassification"],
    label2id: { entailment: 0, not_entailment: 1 },
  });
  expect(
    await cli(
      "finetune",
      "--task",
      "cb",
      "--data",
      "data",
      "--epochs",
      "2",
      "--lora",
      "4",
      ...quick,
      "--out",
      "experts/cb",
    ),
  ).toMatchObject({ code: 0 });
  expect(await json(join(folder, "experts", "cb", "adapter_config.json"))).toMatchObject({
    peft_type: "LORA",
    r: 4,
    lora_alpha: 8,
    modules_to_save: ["classifier"],
  });
  expect(
    await cli(
      "--tasks",
      "rte,cb",
      "--base",
      join(packageFolder, "checkpoints", "mini", "base"),
      "--experts",
      "experts",
      "--data",
      "data",
      "--steps",
      "2",
      "--val-per-task",
      "8",
      "--backend",
      "wasm",
      "--out",
      "merged",
    ),
  ).toMatchObject({ code: 0 });
  expect(
    await cli(
      "finetune",
      "--task",
      "cb",
      "--data",
      "data",
      "--epochs",
      "1",
      "--ia3",
      ...quick,
      "--out",
      "ia3/cb",
    ),
  ).toMatchObject({ code: 0 });
  const file = await openSafetensors(join(folder, "ia3", "cb", "adapter_model.safetensors"));
  const shapes = new Map([...file.entries].map(([name, { shape }]) => [name, shape]));
  await file.close();
  expect([...shapes].find(([name]) => name.endsWith("attention.self.key.ia3_l"))![1][1]).toBe(1);
  expect([...shapes].find(([name]) => name.endsWith("3.output.dense.ia3_l"))![1][0]).toBe(1);
});

test("several tasks at once, a head each, measured like any merge", async () => {
  expect(
    await cli(
      "finetune",
      "--multitask",
      "--task",
      "rte,cb",
      "--data",
      "data",
      "--epochs",
      "1",
      ...quick,
      "--out",
      "multitask",
    ),
  ).toMatchObject({ code: 0 });
  expect((await readdir(join(folder, "multitask", "heads"))).sort((a, b) => (a < b ? -1 : 1))).toEqual([
    "cb",
    "rte",
  ]);
  const { stdout } = await cli("evaluate", "multitask", "--data", "data", "--backend", "wasm", "--json");
  expect(
    (JSON.parse(stdout) as { rows: { task: string; n: number }[] }).rows.map(({ task, n }) => [task, n]),
  ).toEqual([
    ["cb", 16],
    ["rte", 16],
  ]);
});

test("stopped after an epoch and gone on with, it ends at the same bytes", async () => {
  const args = ["finetune", "--task", "rte", "--data", "data", "--epochs", "2", ...quick];
  expect(await cli(...args, "--out", "whole")).toMatchObject({ code: 0 });
  // A stop in the second epoch leaves the state of the first.
  const { spawn } = await import("node:child_process");
  const { main } = await import("./cli.js");
  const child = spawn(process.execPath, [main, ...args, "--out", "parts"], {
    cwd: folder,
    stdio: ["ignore", "ignore", "pipe"],
  });
  let told = "";
  const code = await new Promise((resolve) => {
    child.stderr.on("data", (chunk: Buffer) => {
      told += chunk.toString();
      if (told.includes("epoch 1: training loss") && !child.killed) child.kill("SIGINT");
    });
    child.on("exit", resolve);
  });
  expect(code).toBe(130);
  expect(await readdir(join(folder, "parts"))).toContain("finetune.json");
  expect((await cli(...args.slice(0, -1), "4", "--out", "parts", "--resume")).stderr).toMatch(
    /made with other settings/,
  );
  expect(await cli(...args, "--out", "parts", "--resume")).toMatchObject({ code: 0 });
  const whole = await contents(join(folder, "whole"));
  expect(await contents(join(folder, "parts"))).toEqual(whole);
  const again = await cli(...args, "--out", "parts", "--resume");
  expect(again.stderr).toMatch(/parts is finished already/);
  expect(again.code).toBe(0);
  expect(await cli(...args, "--out", "parts")).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/parts: it holds a finished result; --overwrite replaces it/) as string,
  });
  expect(await contents(join(folder, "parts"))).toEqual(whole);
});

test("no command goes on in, or writes over, a finished result of another", async () => {
  const mini = join(packageFolder, "checkpoints", "mini");
  const base = join(mini, "base");
  const experts = ["rte", "cb"].map((task) => join(mini, "experts", task));
  const merge = ["merge", "--method", "average", "--base", base, "--experts", ...experts, "--out", "kept"];
  expect(await cli(...merge)).toMatchObject({ code: 0 });
  const kept = await contents(join(folder, "kept"));
  const refused = { code: 1, stderr: expect.stringMatching(/kept: it holds a finished result/) as string };
  const finetune = ["finetune", "--task", "rte", "--data", "data", "--epochs", "1", ...quick];
  const train = ["--tasks", "rte,cb", "--steps", "2", "--backend", "wasm"];
  for (const args of [
    finetune,
    [...finetune, "--resume"],
    train,
    [...train, "--resume"],
    ["compare", "--tasks", "rte,cb", "--methods", "average", "--backend", "wasm"],
    ["tree", "--tasks", "rte,cb,copa", "--steps", "2", "--backend", "wasm"],
    merge.slice(0, -2),
  ])
    expect(await cli(...args, "--out", "kept"), args.join(" ")).toMatchObject(refused);
  expect(await contents(join(folder, "kept"))).toEqual(kept);
});

test("a folder that is used again keeps nothing of what stood there", async () => {
  expect(
    await cli(
      "finetune",
      "--task",
      "cb",
      "--data",
      "data",
      "--epochs",
      "1",
      "--lora",
      "2",
      ...quick,
      "--out",
      "again",
    ),
  ).toMatchObject({ code: 0 });
  expect(
    await cli(
      "finetune",
      "--task",
      "cb",
      "--data",
      "data",
      "--epochs",
      "1",
      ...quick,
      "--overwrite",
      "--out",
      "again",
    ),
  ).toMatchObject({ code: 0 });
  expect((await readdir(join(folder, "again"))).sort((a, b) => (a < b ? -1 : 1))).toEqual([
    "config.json",
    "finetune.json",
    "model.safetensors",
    "tokenizer.json",
  ]);
});

test("bad input gets one line", async () => {
  await mkdir(join(folder, "data", "ropes"), { recursive: true });
  await writeFile(
    join(folder, "data", "ropes", "train.jsonl"),
    '{"question":"q","background":"b","situation":"s","answers":["a"]}\n',
  );
  expect((await cli("finetune", "--task", "ropes", "--data", "data", "--out", "x")).stderr).toMatch(
    /ropes asks for a generated text, and the model generates none/,
  );
  expect((await cli("finetune", "--task", "mnist", "--data", "data", "--out", "x")).stderr).toMatch(
    /mnist is a task of images, and the model takes texts/,
  );
  expect((await cli("finetune", "--task", "rte,cb", "--out", "x")).stderr).toMatch(
    /give one task, or --multitask/,
  );
  expect((await cli("finetune", "--task", "rte", "--lora", "4", "--ia3", "--out", "x")).stderr).toMatch(
    /--lora and --ia3: choose one/,
  );
  expect((await cli("finetune", "--task", "rte", "--lora", "no", "--out", "x")).stderr).toMatch(
    /--lora no: it must be a whole number/,
  );
});
