import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { experiments } from "../../src/reproduce/index.js";
import { experimentFolder, readExpected, readPaper } from "../../src/reproduce/papers.js";
import { missedOf } from "../../src/reproduce/run.js";

test("every table and figure of a paper has its folder, with what the paper prints and a README", async () => {
  for (const experiment of experiments.filter(({ id }) => !id.startsWith("ablation/"))) {
    const paper = await readPaper(experiment);
    expect(paper, experiment.id).toBeDefined();
    for (const line of paper!.table?.body ?? [])
      expect(line, experiment.id).toHaveLength(paper!.table!.head.length);
    expect(existsSync(join(experimentFolder(experiment), "README.md")), experiment.id).toBe(true);
    await readExpected(experiment);
  }
  expect(new Set(experiments.map(({ id }) => id)).size).toBe(experiments.length);
});

test("no folder is left without its experiment", async () => {
  const folders = experiments.map((one) => experimentFolder(one));
  for (const name of await readdir(join(packageFolder, "experiments"))) {
    const folder = join(packageFolder, "experiments", name);
    if (existsSync(join(folder, "paper.json"))) expect(folders).toContain(folder);
  }
});

test("what is outside its range is named, and what is missing", () => {
  const range = {
    name: "mini",
    base: "0".repeat(64),
    given: {},
    tasks: [],
    heldOut: [],
    seeds: [],
    numbers: {
      a: { value: 0.5, tolerance: 0.1 },
      b: { value: 1, tolerance: 0 },
      c: { value: 2, tolerance: 1 },
    },
  };
  expect(missedOf({ a: 0.59, b: 1, c: 2.5 }, range)).toEqual([]);
  expect(missedOf({ a: 0.61, b: 1 }, range)).toEqual([
    "a: 0.6100, expected 0.5 ± 0.1 (mini)",
    "c: it was not found, expected 2 ± 1 (mini)",
  ]);
});
