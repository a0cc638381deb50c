/** Inputs that were made to do harm, or are broken: one line says what is wrong, nothing runs, nothing hangs. */
import { execFile, execFileSync, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { appendFile, cp, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { readJson, refuseDeep } from "../src/checkpoint/files.js";
import { openSafetensors } from "../src/checkpoint/safetensors.js";
import { readYaml, readYamlDocuments } from "../src/config/yaml.js";
import { safeLine } from "../src/errors.js";
import { readLog } from "../src/folder/files.js";
import { loadState, saveState } from "../src/folder/state.js";
import { makeTable } from "../src/merge/table.js";
import { packageFolder } from "../src/package.js";
import { notesSection } from "../src/report/card.js";
import { escapeMarkdown } from "../src/report/table.js";
import { readExamples } from "../src/tasks/files.js";
import { zeroMoments } from "../src/train/adamw.js";
import { rte, temporaryFolder } from "./helpers.js";
import { body, merge, model } from "./mergers/small.js";

const folder = await temporaryFolder();
const main = join(packageFolder, "dist", "src", "cli", "main.js");
const hasDevices = process.platform === "linux";

test("a message is one line that a terminal shows as it stands, and not a long one", () => {
  expect(safeLine("a\nb\r\n  c")).toBe("a b c");
  expect(safeLine("\x1b]0;title\x07 \x1b[2J")).toBe("\\u001b]0;title\\u0007 \\u001b[2J");
  expect(safeLine("abc\u202edef")).toBe("abc\\u202edef");
  expect(safeLine("é 漢 ✓")).toBe("é 漢 ✓");
  expect(safeLine("x".repeat(1000))).toHaveLength(500);
});

test("names in a card are text, whatever is in them", async () => {
  expect(escapeMarkdown("x | <script>\n# Owned")).toBe("x \\| \\<script\\> # Owned");
  expect(notesSection(["a\n# b", "`c`"])).toBe("\n## Notes\n- a # b\n- \\`c\\`\n");
  const evil = join(await temporaryFolder(), "x | <img src=y>");
  await rename(await model("evil", body(2)), evil);
  const { out } = await merge([evil, await model("b", body(3))], { method: "average" });
  expect(await readFile(join(out, "README.md"), "utf8")).toContain("| model | x \\| \\<img src=y\\> |");
});

test("JSON that is nested without end is refused before it is read", async () => {
  const path = join(folder, "deep.json");
  await writeFile(path, `${"[".repeat(20_000)}${"]".repeat(20_000)}`);
  await expect(readJson(path)).rejects.toThrow(/deep\.json: it is nested more than 500 deep/);
  expect(() => refuseDeep(`["${"[{".repeat(900)}\\"", {}]`, "x")).not.toThrow();
  const header = new TextEncoder().encode(`{"a":${"[".repeat(5000)}${"]".repeat(5000)}}`);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(header.length), true);
  await writeFile(join(folder, "deep.safetensors"), Buffer.concat([length, header]));
  await expect(openSafetensors(join(folder, "deep.safetensors"))).rejects.toThrow(
    /nested more than 500 deep/,
  );
});

test.skipIf(!hasDevices)(
  "a pipe, a device or a folder in a file's place is refused, not waited for",
  async () => {
    const pipe = join(folder, "pipe");
    execFileSync("mkfifo", [pipe]);
    for (const read of [readJson, openSafetensors, readYaml, (path: string) => readExamples(path, rte)]) {
      await expect(read(pipe)).rejects.toThrow(/pipe: it is a pipe or a device, not a file/);
      await expect(read("/dev/zero")).rejects.toThrow(/it is a pipe or a device/);
      await expect(read(folder)).rejects.toThrow(/a folder stands where a file was expected/);
    }
  },
);

test("YAML: an alias of nothing and one of too much", async () => {
  const path = join(folder, "x.yml");
  await writeFile(path, "steps: *nowhere");
  await expect(readYaml(path)).rejects.toThrow(/x\.yml: Unresolved alias/);
  await expect(readYamlDocuments(path)).rejects.toThrow(/x\.yml: Unresolved alias/);
  const levels = Array.from({ length: 12 }, (_, i) => `${i + 1}: &x${i + 1} [${`*x${i}, `.repeat(9)}]`);
  await writeFile(path, ["0: &x0 [1]", ...levels].join("\n"));
  await expect(readYaml(path)).rejects.toThrow(/x\.yml: Excessive alias count/);
  await expect(readYamlDocuments(path)).rejects.toThrow(/x\.yml: Excessive alias count/);
});

test("a quotation mark within a field of a CSV names the file and the line", async () => {
  const path = join(folder, "test.csv");
  await writeFile(path, 'premise,hypothesis,label\na 5" disk,b,0\n');
  await expect(readExamples(path, rte)).rejects.toThrow(/test\.csv: .*quote.* line 2/i);
});

test("a state whose lists do not fit its table is no state", async () => {
  const out = join(folder, "state");
  await mkdir(out, { recursive: true });
  const table = makeTable(2, 3, () => 0.1);
  const identity = { seed: 1 };
  await saveState(out, identity, { raw: table, moments: zeroMoments(6), best: undefined });
  await expect(loadState(out, identity)).resolves.toMatchObject({ raw: table });
  const path = join(out, "state.json");
  const whole = JSON.parse(await readFile(path, "utf8")) as {
    raw: { rows: number; values: number[] };
    moments: { first: number[]; second: number[]; step: number };
  };
  for (const spoil of [
    (state: typeof whole) => void state.raw.values.pop(),
    (state: typeof whole) => void state.moments.first.pop(),
    (state: typeof whole) => (state.moments.second[0] = -1),
    (state: typeof whole) => (state.moments.step = -3),
    (state: typeof whole) => (state.raw.rows = 1),
  ]) {
    const state = structuredClone(whole);
    spoil(state);
    await writeFile(path, JSON.stringify(state));
    await expect(loadState(out, identity)).rejects.toThrow(/state\.json: it is damaged/);
  }
});

test("a cut line of a training's log names file and line", async () => {
  await appendFile(join(folder, "training.jsonl"), '{"step": 0, "loss": 1}\n{"step": 1, "lo');
  await expect(readLog(folder)).rejects.toThrow(/training\.jsonl: line 2: it is damaged/);
});

test("a report draws a foreign folder's pictures, and does not take them in", async () => {
  const out = join(folder, "reported");
  await cp(join(packageFolder, "test", "golden", "pictures"), out, { recursive: true }).catch(() =>
    mkdir(out),
  );
  const run = {
    rows: [],
    search: {},
    settings: {},
    inputs: [{ role: "base", file: "x", sha256: "<script>alert(1)</script>" }],
  };
  await writeFile(join(out, "results.json"), JSON.stringify(run));
  await writeFile(join(out, "tree.svg"), '<svg onload="alert(1)"><script>alert(2)</script></svg>');
  await promisify(execFile)(process.execPath, [main, "report", out]);
  const page = await readFile(join(out, "report.html"), "utf8");
  expect(page).not.toMatch(/alert\([12]\)<|onload="alert/);
  expect(page).toContain("data:image/svg+xml;base64,");
});

test.skipIf(!hasDevices || !existsSync("/dev/full"))("output that nobody takes is an error", () => {
  const run = (command: string) =>
    spawnSync("bash", ["-c", `${command}; exit \${PIPESTATUS[0]}`], { encoding: "utf8" });
  for (const asked of ["--help", "--version", "merge --help"])
    expect(run(`'${process.execPath}' '${main}' ${asked} > /dev/full`).status, asked).toBe(1);
  const full = run(`'${process.execPath}' '${main}' tasks > /dev/full`);
  expect([full.status, full.stderr]).toEqual([
    1,
    expect.stringMatching(/^train-merge: stdout: .*no space left/),
  ]);
  // As clusters limit it: a reader of parquet would ask for more.
  const limited = run(`ulimit -v 3000000; '${process.execPath}' '${main}' --version`);
  expect(limited.status).toBe(0);
});
