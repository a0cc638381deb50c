import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { temporaryFolder } from "../helpers.js";
import { cliIn } from "./cli.js";

/**
 * The papers' own settings on small families in the form in which their models and data are published
 * (scripts/families/stand-ins): every config that ships runs as it is, but for the paths.
 */
const folder = await temporaryFolder();
const cli = cliIn(folder);
const config = (experiment: string) => join(packageFolder, "experiments", experiment, "config.yaml");
/** Options that put a stand-in in the place of what is fetched. */
const inPlaceOf = (setting: string): string[] => [
  ...["base", "experts", "data"].flatMap((part) => [`--${part}`, join(folder, setting, part)]),
  "--datasets",
  "",
  ...(setting === "t0" ? ["--prompts", join(folder, setting, "promptsource")] : []),
];
const quick = ["--backend", "wasm", "--test-per-task", "3", "--steps", "1"];

describe("stand-ins", () => {
  beforeAll(() => {
    const make = join(packageFolder, "dist", "scripts", "families", "stand-ins", "make.js");
    execFileSync(process.execPath, [make, folder, "--layers", "1", "--rows", "36"]);
  });

  test.each([
    ["t0", "supermerge-table-1", 11],
    ["clip", "supermerge-table-3", 8],
    ["glue", "dare-drop-rates", 8],
  ] as const)("%s runs with the config of %s", async (setting, experiment, experts) => {
    const given = ["--config", config(experiment), ...inPlaceOf(setting)];
    const { code, stderr } = await cli(...given, ...quick, "--out", experiment);
    expect(stderr).not.toMatch(/fault of train-merge/);
    expect(code, stderr).toBe(0);
    const { rows } = JSON.parse(await readFile(join(folder, experiment, "results.json"), "utf8")) as {
      rows: { method: string; task: string }[];
    };
    expect(rows.filter(({ method }) => method === "supermerge")).toHaveLength(experts);
    // What it costs is known from headers, and it evaluates as it was measured.
    const plan = await cli("explain", ...given, "--backend", "wasm", "--json");
    expect((JSON.parse(plan.stdout) as { predictions: unknown[] }).predictions.length).toBeGreaterThan(1);
  });

  test("T0's layers and experts are as many as the paper counts: 8 of (IA)³ a pair of blocks", async () => {
    const { stderr } = await cli(
      "--config",
      config("supermerge-table-1"),
      ...inPlaceOf("t0"),
      ...quick,
      "--out",
      "t",
    );
    expect(stderr).toContain("8 layers × 11 experts = 88 coefficients");
  });

  test("prompts shows what P3's templates make of every published set", async () => {
    for (const task of ["copa", "social_iqa", "qasc", "anli_r2", "wsc", "ropes"]) {
      const given = ["--config", config("supermerge-table-2"), ...inPlaceOf("t0").slice(4)];
      const { stdout, code } = await cli("prompts", task, ...given, "--show", "2", "--json");
      expect(code).toBe(0);
      const { examples } = JSON.parse(stdout) as {
        examples: { prompt?: string; answers?: string[]; answer?: string }[][];
      };
      expect(examples).toHaveLength(2);
      for (const { prompt, answers, answer } of examples.flat())
        if (prompt !== undefined) expect(answers).toContain(answer);
    }
    const shown = await cli("prompts", "copa", ...inPlaceOf("t0").slice(4));
    expect(shown.stdout).toMatch(/leaves this example out|→/);
    expect((await cli("prompts", "mnist")).stderr).toMatch(/is a task of the kind image/);
  });

  test("tasks held out get heads from the names of their classes, with experts that are named one by one", async () => {
    const tasks = ["sun397", "cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd"];
    const experts = tasks.map((task) => `${task}=${join(folder, "clip", "experts", task)}`);
    const merged = ["--tasks", "gtsrb,dtd", "--held-out", "mnist", "--base", join(folder, "clip", "base")];
    const data = ["--data", join(folder, "clip", "data"), "--datasets", ""];
    const given = ["--config", config("supermerge-table-6"), ...merged, "--experts", ...experts, ...data];
    const out = ["--out", "held-out", "--json"];
    const { code, stdout, stderr } = await cli("reproduce", "supermerge/table-6", ...given, ...quick, ...out);
    expect(code, stderr).toBe(0);
    const { rows } = JSON.parse(stdout) as { rows: { task: string }[] };
    expect(new Set(rows.map(({ task }) => task))).toContain("mnist");
  });
});
