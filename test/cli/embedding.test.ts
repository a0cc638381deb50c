import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { temporaryFolder } from "../helpers.js";
import { cliIn, json } from "./cli.js";

/** Embedding models from data to the folder that sentence-transformers opens, on the family that ships. */
const folder = await temporaryFolder();
const cli = cliIn(folder);
const mini = join(packageFolder, "checkpoints", "mini");
const quick = ["--backend", "wasm", "--data", "data"];
const experts = [`alike=${join(mini, "experts", "rte")}`, `partners=${join(mini, "experts", "cb")}`];
const family = ["--base", join(mini, "base"), "--experts", ...experts];

interface Pair {
  text_a: string;
  text_b: string;
  label: number;
}
await mkdir(join(folder, "data"));
await writeFile(
  join(folder, "data", "tasks.json"),
  JSON.stringify({
    alike: { kind: "similarity" },
    partners: { kind: "retrieval" },
    rte: { kind: "pair", labels: 2 },
  }),
);
for (const task of ["alike", "partners", "rte"]) await mkdir(join(folder, "data", task));
for (const [split, count] of [
  ["train", 24],
  ["validation", 12],
  ["test", 30],
] as const) {
  const source = join(
    packageFolder,
    "data",
    "mini",
    "rte",
    `${split === "train" ? "validation" : split}.jsonl`,
  );
  const pairs = (await readFile(source, "utf8"))
    .split("\n")
    .slice(0, count)
    .map((line) => JSON.parse(line) as Pair);
  const lines = (rows: object[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");
  const scored = pairs.map(({ text_a, text_b, label }) => ({
    sentence1: text_a,
    sentence2: text_b,
    score: 1 - label,
  }));
  const matched = pairs
    .filter(({ label }) => label === 0)
    .map(({ text_a, text_b }) => ({ anchor: text_a, positive: text_b }));
  await writeFile(join(folder, "data", "alike", `${split}.jsonl`), lines(scored));
  await writeFile(join(folder, "data", "partners", `${split}.jsonl`), lines(matched));
  await writeFile(join(folder, "data", "rte", `${split}.jsonl`), lines(pairs));
}

interface Results {
  rows: { method: string; task: string; value: number; metric: string }[];
}
test("tasks of vectors are found by columns, and by what their expert is", async () => {
  const found = join(folder, "found");
  for (const [task, from] of [
    ["twins", "alike"],
    ["mates", "partners"],
  ] as const)
    await cp(join(folder, "data", from), join(found, task), { recursive: true });
  const rows = (await readFile(join(found, "twins", "test.jsonl"), "utf8")).replaceAll(
    '"score":1',
    '"score":0.9',
  );
  await writeFile(join(found, "twins", "test.jsonl"), rows);
  const expert = join(folder, "sentences");
  await cp(join(mini, "experts", "rte"), expert, { recursive: true });
  await writeFile(
    join(expert, "modules.json"),
    JSON.stringify([
      { path: "", type: "sentence_transformers.models.Transformer" },
      { path: "1_Pooling", type: "sentence_transformers.models.Pooling" },
    ]),
  );
  await mkdir(join(expert, "1_Pooling"));
  await writeFile(join(expert, "1_Pooling", "config.json"), JSON.stringify({ pooling_mode: "mean" }));
  const one = ["--backend", "wasm", "--data", "found", "--base", join(mini, "base"), "--steps", "1"];
  const experts = ["--experts", `twins=${expert}`, `mates=${expert}`];
  const run = await cli("--tasks", "twins,mates", ...one, ...experts, "--out", "twinned");
  expect(run.code, run.stderr).toBe(0);
  const said = run.stdout + run.stderr;
  expect(said).toContain("twins: how alike two texts are");
  expect(said).toContain("mates: texts and their partners");
});

const scoresOf = async (out: string, method: string): Promise<Record<string, number>> =>
  Object.fromEntries(
    (await json<Results>(join(folder, out, "results.json"))).rows
      .filter((row) => row.method === method)
      .map(({ task, value }) => [task, value]),
  );

test("train: a folder that sentence-transformers opens, measured as it is written", async () => {
  const trained = await cli("--tasks", "alike,partners", ...family, ...quick, "--steps", "3", "--out", "out");
  expect(trained.code, trained.stderr).toBe(0);
  expect(trained.stdout + trained.stderr).toContain("nDCG@10");
  expect(await json<{ type: string }[]>(join(folder, "out", "modules.json"))).toHaveLength(2);
  const card = await readFile(join(folder, "out", "README.md"), "utf8");
  expect(card).toContain("library_name: sentence-transformers");
  expect(card).toContain('SentenceTransformer(".")');

  const measured = await cli("evaluate", "out", ...quick, "--json");
  expect(measured.code, measured.stderr).toBe(0);
  const { rows } = JSON.parse(measured.stdout) as Results;
  expect(Object.fromEntries(rows.map(({ task, value }) => [task, value]))).toEqual(
    await scoresOf("out", "supermerge"),
  );
  // Vectors need no head: any model answers every such task.
  const base = await cli("evaluate", join(mini, "base"), "--tasks", "alike,partners", ...quick, "--json");
  expect(base.code, base.stderr).toBe(0);
  const before = (JSON.parse(base.stdout) as Results).rows.map(({ value }) => value);
  expect(before).toEqual(Object.values(await scoresOf("out", "pretrained")));
});

test("distillation needs no scores, a tree and a comparison take vectors too", async () => {
  const common = ["--tasks", "alike,partners", ...family, ...quick, "--steps", "2"];
  const taught = await cli("train", ...common, "--loss", "distillation", "--out", "taught");
  expect(taught.code, taught.stderr).toBe(0);
  const compared = await cli(
    "compare",
    ...common,
    "--methods",
    "average,task-arithmetic,regmean",
    "--out",
    "compared",
  );
  expect(compared.code, compared.stderr).toBe(0);
  const tree = await cli("tree", ...common, "--pairwise", "--out", "tree");
  expect(tree.code, tree.stderr).toBe(0);
  expect(await json<unknown[]>(join(folder, "tree", "modules.json"))).toHaveLength(2);
});

test("finetune: an expert that makes vectors, or an adapter", async () => {
  const common = ["--base", join(mini, "base"), ...quick, "--epochs", "1"];
  const whole = await cli("finetune", "--task", "partners", ...common, "--out", "expert");
  expect(whole.code, whole.stderr).toBe(0);
  expect(await json<unknown[]>(join(folder, "expert", "modules.json"))).toHaveLength(2);
  const adapter = await cli("finetune", "--task", "alike", "--lora", "2", ...common, "--out", "adapter");
  expect(adapter.code, adapter.stderr).toBe(0);
  expect(await json<object>(join(folder, "adapter", "adapter_config.json"))).toMatchObject({
    task_type: "FEATURE_EXTRACTION",
  });
  const measured = await cli("evaluate", "expert", "--tasks", "partners", ...quick);
  expect(measured.code, measured.stderr).toBe(0);
});

test("vectors have no classes: what needs them is refused, and so are tasks of both kinds", async () => {
  const common = [...family, ...quick, "--steps", "1", "--out", "none"];
  const entropy = await cli("--tasks", "alike,partners", ...common, "--loss", "entropy");
  expect(entropy.code).not.toBe(0);
  expect(entropy.stderr).toMatch(/--loss entropy needs classes, and the task asks for a number/);
  const stars = (await readFile(join(folder, "data", "alike", "validation.jsonl"), "utf8")).replaceAll(
    '"score":1',
    '"score":5',
  );
  await writeFile(join(folder, "data", "alike", "validation.jsonl"), stars);
  const beyond = await cli("--tasks", "alike,partners", ...common);
  expect(beyond.code).not.toBe(0);
  expect(beyond.stderr).toMatch(/alike by 5, and a cosine lies between −1 and 1/);
  const fisher = await cli("compare", "--tasks", "partners", ...common, "--methods", "fisher");
  expect(fisher.code).not.toBe(0);
  const others = ["--experts", `alike=${join(mini, "experts", "cb")}`, `rte=${join(mini, "experts", "rte")}`];
  const base = ["--base", join(mini, "base"), "--steps", "1", "--out", "none"];
  const mixed = await cli("--tasks", "alike,rte", ...quick, ...base, ...others);
  expect(mixed.code).not.toBe(0);
  expect(mixed.stderr).toMatch(/alike is answered by vectors, rte is not/);
});
