import { readFile, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../helpers.js";
import { cliIn, json } from "./cli.js";

const folder = await temporaryFolder();
const cli = cliIn(folder);

test("what there is, is listed", async () => {
  const { code, stdout } = await cli("reproduce", "--list");
  expect(code).toBe(0);
  for (const id of ["supermerge/table-1", "supermerge/figure-5", "adamerging/curve", "dare/drop-rates", "rankmean/pairs", "parameter-selection/multi-task", "at-scale/experts", "ablation/gate"]) expect(stdout).toContain(id);
  expect((await cli("reproduce", "supermerge/table-9")).stderr).toMatch(/there is no experiment "supermerge\/table-9" \(did you mean "supermerge\/table-\d"\?\)/);
});

test("a figure of weights: pictures, tables in every form, a page, the inputs' hashes", async () => {
  const { code, stdout } = await cli("reproduce", "supermerge/figure-3", "--out", "violins");
  expect(code).toBe(0);
  expect(stdout).toContain("Layers take part unequally");
  const files = await readdir(join(folder, "violins"));
  for (const file of ["report.md", "report.html", "results.json", "spread.md", "spread.tex", "spread.csv", "task-vector-rte.svg", "task-vector-rte.png"]) expect(files).toContain(file);
  const { inputs, command, numbers } = await json<{ inputs: { role: string }[]; command: string; numbers: Record<string, number> }>(join(folder, "violins", "results.json"));
  expect(inputs.map(({ role }) => role)).toContain("base");
  expect(command).toBe("train-merge reproduce supermerge/figure-3 --out violins");
  // Stopped before the end, the same command goes on.
  await rm(join(folder, "violins", "results.json"));
  expect(await cli("reproduce", "supermerge/figure-3", "--out", "violins")).toMatchObject({ code: 0 });
  expect(Object.keys(numbers)).toEqual(["rte", "cb", "copa"].map((task) => `largest over smallest layer, ${task}`));
});

test("merges at two seeds, tasks held out, and the rows that all is made of", async () => {
  const args = ["reproduce", "supermerge/table-4", "--tasks", "rte,cb", "--held-out", "copa", "--seeds", "0,1", "--steps", "2", "--val-per-task", "8", "--backend", "wasm", "--out", "gates"];
  expect(await cli(...args)).toMatchObject({ code: 0 });
  const { rows, inputsHash } = await json<{ inputsHash: string; rows: { method: string; task: string; seed: number; inputs: string; command: string }[] }>(join(folder, "gates", "results.json"));
  for (const method of ["with tanh", "without tanh"]) for (const task of ["rte", "cb", "copa"]) expect(rows.filter((row) => row.method === method && row.task === task).map(({ seed }) => seed)).toEqual([0, 1]);
  expect(rows.every((row) => row.inputs === inputsHash && row.command.startsWith("train-merge reproduce"))).toBe(true);
  const report = await readFile(join(folder, "gates", "report.md"), "utf8");
  expect(report).toMatch(/SYNTHETIC/);
  expect(report).toMatch(/\| with tanh \| 69\.6 \| 69\.0 \|/); // the paper's own
  expect(report).toMatch(/\| In-domain, tanh is better than no gate \| (yes|no) \|/);
  expect((await cli("reproduce", "supermerge/table-4", "--tasks", "rte,cb", "--out", "none")).stderr).toMatch(/name them with --held-out/);
});
