import { execFile } from "node:child_process";
import { mkdir, readFile, readdir, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { temporaryFolder } from "../helpers.js";

/** The package as npm packs it, in an empty folder, and programs that import it. */
const run = promisify(execFile);
const root = await temporaryFolder();
const npm = process.platform === "win32" ? "npm.cmd" : "npm";
// Built already: `prepack` would build it again.
const { stdout } = await run(npm, ["pack", "--ignore-scripts", "--json", "--pack-destination", root], {
  cwd: packageFolder,
  maxBuffer: 2 ** 26,
});
const [packed] = JSON.parse(stdout) as { filename: string; size: number; files: { path: string }[] }[];
const app = join(root, "app");
const installed = join(app, "node_modules", "train-merge");
await mkdir(installed, { recursive: true });
await run("tar", ["-xzf", join(root, packed!.filename), "-C", installed, "--strip-components=1"]);
// Its packages, as they stand here: nothing is fetched.
await run("ln", ["-s", join(packageFolder, "node_modules"), join(installed, "node_modules")]);
await writeFile(join(app, "package.json"), '{ "type": "module" }');

/** Runs a program in the folder that has the package. */
async function program(text: string): Promise<string> {
  const path = join(app, "program.mjs");
  await writeFile(path, text);
  const { stdout: said } = await run(process.execPath, [path], { cwd: app });
  return said.trim();
}
const mini = join(installed, "checkpoints", "mini");
const family = `base: "${join(mini, "base")}", experts: ["${join(mini, "experts")}"]`;

test("the package is small, and holds no source maps, tests or scripts", () => {
  expect(packed!.size).toBeLessThan(4.4e6);
  const paths = packed!.files.map(({ path }) => path);
  expect(paths.filter((path) => /\.map$|^(test|scripts|src|dist\/(test|scripts))\//.test(path))).toEqual([]);
});

test("the command runs from it, in an empty folder", async () => {
  const main = join(installed, "dist", "src", "cli", "main.js");
  const { stdout: said } = await run(
    process.execPath,
    [main, "--tasks", "rte,cb,copa", "--steps", "1", "--val-per-task", "4", "--out", "out"],
    { cwd: app },
  );
  expect(said).toMatch(/supermerge/);
  expect(await readdir(join(app, "out", "tasks"))).toEqual(["cb", "copa", "rte"]);
  expect((await stat(join(app, "out", "tasks", "rte", "model-00001-of-00002.safetensors"))).nlink).toBe(4);
});

test("a program merges by training with what is needed alone, and may listen", async () => {
  const said = await program(`
    import { mergeByTraining, resultTable, toText } from "train-merge";
    const steps = [];
    const { rows, finished, out } = await mergeByTraining(
      { tasks: ["rte", "cb"], steps: 2, valPerTask: 4, baselines: false, out: "trained", ${family},
        data: "${join(installed, "data", "mini")}" },
      { step: ({ step }) => steps.push(step) },
    );
    console.log(JSON.stringify({ finished, out, steps, rows: rows.length, table: toText(resultTable(rows)) }));
  `);
  expect(JSON.parse(said)).toMatchObject({ finished: true, out: "trained", steps: [0, 1, 2], rows: 2 });
});

test("a program merges without training, and compares methods", async () => {
  const said = await program(`
    import { mergeModels, compareMethods, evaluateFolder } from "train-merge";
    const experts = ["rte", "cb"].map((task) => "${join(mini, "experts")}/" + task);
    await mergeModels({ method: "ties", base: "${join(mini, "base")}", models: experts, out: "ties" });
    const { rows } = await compareMethods({ tasks: ["rte", "cb"], methods: ["average"], valPerTask: 4, ${family},
      data: "${join(installed, "data", "mini")}", out: "compared" });
    console.log(JSON.stringify(rows.map(({ method, task }) => method + " " + task)));
  `);
  expect(JSON.parse(said)).toContain("average rte");
  expect(await readFile(join(app, "ties", "merge.json"), "utf8")).toMatch(/"method": "ties"/);
});

test("a typo in a setting is found by the compiler, and refused at run time", async () => {
  const said = await program(`
    import { mergeByTraining } from "train-merge";
    await mergeByTraining({ tasks: ["rte"], lrr: 3 }).catch((error) => console.log(error.message));
    await mergeByTraining({ tasks: ["rte"], lr: -1 }).catch((error) => console.log(error.message));
  `);
  expect(said.split("\n")).toEqual([
    'there is no setting "lrr" (did you mean "lr"?)',
    "--lr: it must be a number above 0",
  ]);
  await writeFile(
    join(app, "typed.ts"),
    `import { mergeByTraining, type GivenMerge, type MergeResult } from "train-merge";
     const given: GivenMerge = { tasks: ["rte"], steps: 3 };
     export const made: Promise<MergeResult> = mergeByTraining(given);
     // @ts-expect-error a setting that there is not
     export const typo: GivenMerge = { tasks: ["rte"], lrr: 3 };
     // @ts-expect-error tasks are needed
     export const lacking: GivenMerge = { steps: 3 };\n`,
  );
  const tsc = join(packageFolder, "node_modules", "typescript", "bin", "tsc");
  const flags = [
    "--noEmit",
    "--strict",
    "--exactOptionalPropertyTypes",
    "--module",
    "nodenext",
    "--target",
    "es2023",
  ];
  const types = [
    "--typeRoots",
    join(packageFolder, "node_modules", "@types"),
    "--types",
    "node",
    "--skipLibCheck",
  ];
  const { stdout: errors } = await run(process.execPath, [tsc, ...flags, ...types, "typed.ts"], { cwd: app });
  expect(errors).toBe("");
});
