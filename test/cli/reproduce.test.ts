import { copyFile, cp, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { temporaryFolder } from "../helpers.js";
import { cliIn, json } from "./cli.js";

const folder = await temporaryFolder();
const cli = cliIn(folder);

// The data that ships, with a few test examples a task.
await cp(join(packageFolder, "data", "mini"), join(folder, "few"), { recursive: true });
for (const task of ["rte", "cb", "copa"])
  await writeFile(
    join(folder, "few", task, "test.jsonl"),
    (await readFile(join(packageFolder, "data", "mini", task, "test.jsonl"), "utf8"))
      .split("\n")
      .slice(0, 16)
      .join("\n"),
  );

test("what there is, is listed", async () => {
  const { code, stdout } = await cli("reproduce", "--list");
  expect(code).toBe(0);
  for (const id of [
    "supermerge/table-1",
    "supermerge/figure-5",
    "adamerging/curve",
    "dare/drop-rates",
    "rankmean/pairs",
    "parameter-selection/multi-task",
    "at-scale/experts",
    "ablation/gate",
  ])
    expect(stdout).toContain(id);
  expect((await cli("reproduce", "supermerge/table-9")).stderr).toMatch(
    /there is no experiment "supermerge\/table-9" \(did you mean "supermerge\/table-\d"\?\)/,
  );
});

test("a figure of weights: pictures, tables in every form, a page, the inputs' hashes", async () => {
  const { code, stdout } = await cli("reproduce", "supermerge/figure-3", "--out", "violins");
  expect(code).toBe(0);
  expect(stdout).toContain("Layers take part unequally");
  const files = await readdir(join(folder, "violins"));
  for (const file of [
    "report.md",
    "report.html",
    "results.json",
    "spread.md",
    "spread.tex",
    "spread.csv",
    "task-vector-rte.svg",
    "task-vector-rte.png",
  ])
    expect(files).toContain(file);
  const { inputs, command, numbers } = await json<{
    inputs: { role: string; sha256: string }[];
    command: string;
    numbers: Record<string, number>;
  }>(join(folder, "violins", "results.json"));
  expect(inputs.map(({ role }) => role)).toContain("base");
  expect(command).toBe("train-merge reproduce supermerge/figure-3 --out violins");
  // Stopped before the end, the same command goes on.
  await rm(join(folder, "violins", "results.json"));
  expect(await cli("reproduce", "supermerge/figure-3", "--out", "violins")).toMatchObject({ code: 0 });
  expect(Object.keys(numbers)).toEqual([
    ...["rte", "cb", "copa"].map((task) => `largest over smallest layer, ${task}`),
    "largest over smallest expert, of one layer",
  ]);
  // The report alone says what it was made from.
  const report = await readFile(join(folder, "violins", "report.md"), "utf8");
  for (const { sha256 } of inputs) expect(report).toContain(sha256);
});

test("merges at two seeds, tasks held out, and the rows that all is made of", async () => {
  const args = [
    "reproduce",
    "supermerge/table-4",
    "--tasks",
    "rte,cb",
    "--held-out",
    "copa",
    "--seeds",
    "0,1",
    "--steps",
    "2",
    "--val-per-task",
    "8",
    "--backend",
    "wasm",
    "--out",
    "gates",
  ];
  expect(await cli(...args)).toMatchObject({ code: 0 });
  const { rows, inputsHash } = await json<{
    inputsHash: string;
    rows: { method: string; task: string; seed: number; inputs: string; command: string }[];
  }>(join(folder, "gates", "results.json"));
  for (const method of ["with tanh", "without tanh"])
    for (const task of ["rte", "cb", "copa"])
      expect(
        rows.filter((row) => row.method === method && row.task === task).map(({ seed }) => seed),
      ).toEqual([0, 1]);
  expect(
    rows.every((row) => row.inputs === inputsHash && row.command.startsWith("train-merge reproduce")),
  ).toBe(true);
  const report = await readFile(join(folder, "gates", "report.md"), "utf8");
  expect(report).toMatch(/SYNTHETIC/);
  expect(report).toMatch(/\| with tanh \| 69\.6 \| 69\.0 \|/); // the paper's own
  expect(report).toMatch(/\| In-domain, tanh is better than no gate \| (yes|no|not settled) \| measured/);
  expect((await cli("reproduce", "supermerge/table-4", "--tasks", "rte,cb", "--out", "none")).stderr).toMatch(
    /name them with --held-out/,
  );
});

test("what was trained alike is not trained again, whatever it is called", async () => {
  const args = [
    "--data",
    "few",
    "--tasks",
    "rte,cb",
    "--steps",
    "1",
    "--init",
    "0.3",
    "--val-per-task",
    "4",
    "--backend",
    "wasm",
    "--runs",
    "alike",
  ];
  const values = async (name: string, method: string) =>
    (await json<{ rows: { method: string; value: number }[] }>(join(folder, name, "results.json"))).rows
      .filter((row) => row.method === method)
      .map(({ value }) => value);
  expect(await cli("reproduce", "ablation/gate", ...args, "--out", "gate")).toMatchObject({ code: 0 });
  expect(await cli("reproduce", "ablation/granularity", ...args, "--out", "granularity")).toMatchObject({
    code: 0,
  });
  const trained = (await readdir(join(folder, "alike", "rte+cb", "seed0", "methods")))
    .filter((file) => file.endsWith(".started"))
    .map((file) => file.replace(".started", ""))
    .sort();
  expect(trained).toEqual(["block", "clamp", "identity", "model", "module", "sigmoid", "tanh"]);
  expect(await values("granularity", "tensor")).toEqual(await values("gate", "tanh"));
});

test("DARE's p is searched beside what the method in front of which it stands searches", async () => {
  expect(
    await cli(
      "reproduce",
      "dare/pairs",
      "--data",
      "few",
      "--tasks",
      "rte,cb",
      "--val-per-task",
      "4",
      "--backend",
      "wasm",
      "--runs",
      "dropped",
      "--out",
      "pairs",
    ),
  ).toMatchObject({ code: 0 });
  const { search } = await json<{
    search: Record<string, { values: { dareP?: number; lambda?: number }; accuracy: number; loss: number }[]>;
  }>(join(folder, "dropped", "rte+cb", "seed0", "results.json"));
  const rates = (name: string) => [...new Set(search[name]!.map(({ values }) => values.dareP))];
  expect(rates("task-arithmetic")).toEqual([undefined]);
  for (const name of ["dare", "dare-average", "dare-fisher", "dare-regmean", "dare-ties"])
    expect(rates(name), name).toEqual([0.1, 0.3, 0.5, 0.7, 0.9]);
  expect(search["dare"]).toHaveLength(5 * search["task-arithmetic"]!.length);
  // What is said to be found is the best of them.
  const [best] = [...search["dare"]!].sort((a, b) => b.accuracy - a.accuracy || a.loss - b.loss);
  expect(await readFile(join(folder, "pairs", "gains.csv"), "utf8")).toMatch(
    new RegExp(`^task-arithmetic,-?[0-9.]+,${best!.values.dareP}$`, "m"),
  );
});

test("models of one task, alike but for the order of its examples, and their merges", async () => {
  await mkdir(join(folder, "learned", "cb"), { recursive: true });
  const shipped = join(packageFolder, "data", "mini");
  await copyFile(join(shipped, "tasks.json"), join(folder, "learned", "tasks.json"));
  for (const [split, from] of [
    ["train", "validation"],
    ["validation", "validation"],
    ["test", "test"],
  ])
    await copyFile(join(shipped, "cb", `${from}.jsonl`), join(folder, "learned", "cb", `${split}.jsonl`));
  const args = [
    "reproduce",
    "parameter-selection/single-task",
    "--data",
    "learned",
    "--tasks",
    "cb",
    "--models",
    "2",
    "--epochs",
    "1",
    "--finetune-lr",
    "1e-3",
    "--most",
    "32",
    "--backend",
    "wasm",
    "--out",
    "orders",
  ];
  expect(await cli(...args)).toMatchObject({ code: 0 });
  const found = await json<{
    settings: unknown;
    numbers: Record<string, number>;
    rows: { method: string; value: number }[];
  }>(join(folder, "orders", "results.json"));
  expect(found.settings).toEqual({ models: 2, epochs: 1, lr: 1e-3, most: 32 });
  expect(found.rows.map(({ method }) => method).slice(0, 4)).toEqual([
    "order 1",
    "order 2",
    "average",
    "parameter-selection",
  ]);
  const [first, second] = found.rows;
  expect(found.numbers["average, sub-models, on average"]).toBeCloseTo(
    (first!.value + second!.value) / 2,
    10,
  );
  expect(found.numbers["average, sub-models, the best of each task"]).toBe(
    Math.max(first!.value, second!.value),
  );
  // They began alike, heads too, and came out different.
  const weights = (order: string) =>
    readFile(join(folder, "orders", "runs", "orders-cb", "seed0", order, "model.safetensors"));
  expect((await weights("order-1")).equals(await weights("order-2"))).toBe(false);
  // Nothing is done again.
  const again = await cli(...args);
  expect(again.code).toBe(0);
  expect(again.stderr).not.toContain("order 1");
});

test("several families, beside each other", async () => {
  await cp(join(packageFolder, "checkpoints", "mini"), join(folder, "checkpoints", "other"), {
    recursive: true,
  });
  const args = [
    "reproduce",
    "at-scale/bases",
    "--families",
    "mini,other",
    "--data",
    "few",
    "--tasks",
    "rte,cb",
    "--held-out",
    "copa",
    "--val-per-task",
    "4",
    "--backend",
    "wasm",
    "--out",
    "bases",
  ];
  expect(await cli(...args)).toMatchObject({ code: 0 });
  const { numbers } = await json<{ numbers: Record<string, number> }>(join(folder, "bases", "results.json"));
  for (const group of ["held-in", "held-out"]) {
    expect(numbers[`${group}, mini, 2 experts`]).toBeGreaterThan(0.2);
    expect(numbers[`${group}, other, 2 experts`]).toBe(numbers[`${group}, mini, 2 experts`]);
  }
  // What is held out is never merged.
  expect(numbers["held-in, mini, 3 experts"]).toBeUndefined();
  expect(
    (await cli("reproduce", "at-scale/bases", "--tasks", "rte,cb", "--held-out", "copa")).stderr,
  ).toMatch(/name them with --families/);
  expect(
    (await cli("reproduce", "supermerge/figure-3", "--families", "mini,other", "--tasks", "rte,cb")).stderr,
  ).toMatch(/looks at one family/);
  expect((await cli(...args, "--family", "mini")).stderr).toMatch(
    /--family: --families names the models already/,
  );
  expect((await cli("reproduce", "supermerge/figure-3", "--epochs", "2")).stderr).toMatch(
    /--epochs: supermerge\/figure-3 fine-tunes no models of its own/,
  );
  await cp(join(packageFolder, "checkpoints", "mini"), join(folder, "twin", "mini"), { recursive: true });
  expect((await cli(...args.map((arg) => (arg === "mini,other" ? "mini,twin/mini" : arg)))).stderr).toMatch(
    /two of the folders are called alike/,
  );
});
