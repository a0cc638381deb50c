import { execFile, execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, describe, expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { temporaryFolder } from "../helpers.js";

const main = join(packageFolder, "dist", "src", "cli", "main.js");
const helper = join(packageFolder, "scripts", "one-slurm.mjs");
const folder = await temporaryFolder();
const cluster = join(folder, "cluster");

/** Starts Debian's SLURM on this machine: its configuration, or why there is none. */
function start(): { conf?: string; problem?: string } {
  try {
    return {
      conf: execFileSync(process.execPath, [helper, "start", cluster], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
      })
        .trim()
        .replace(/^export SLURM_CONF=/, ""),
    };
  } catch (error) {
    return {
      problem: String((error as { stderr?: string }).stderr ?? error)
        .trim()
        .split("\n")
        .at(-1)!,
    };
  }
}
const { conf, problem } = start();
afterAll(() => void execFileSync(process.execPath, [helper, "stop", cluster]));
if (problem !== undefined) console.log(`slurm skipped: ${problem}`);

async function tree(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const all = [
    main,
    "tree",
    "--tasks",
    "cb,copa,trec6",
    "--steps",
    "4",
    "--val-per-task",
    "16",
    "--backend",
    "wasm",
    "--residency",
    "host",
    "--blocks",
    "off",
    "--executor",
    "slurm",
    ...args,
  ];
  try {
    return {
      code: 0,
      ...(await promisify(execFile)(process.execPath, all, {
        cwd: folder,
        env: { ...process.env, SLURM_CONF: conf },
      })),
    };
  } catch (error) {
    return error as { code: number; stdout: string; stderr: string };
  }
}

describe.skipIf(problem !== undefined)(
  `a tree on a SLURM cluster${problem === undefined ? "" : ` (skipped: ${problem})`}`,
  () => {
    test("submits each level as an array that waits for the one below; reads logs and accounting", async () => {
      const out = join(folder, "out");
      const { code, stderr } = await tree("--out", out);
      expect({ code, stderr }).toMatchObject({ code: 0 });
      expect(stderr).toMatch(/level 1: job \d+, 1 node\n/);
      expect(stderr).toMatch(/level 2: job \d+, 1 node, after \d+/);
      const accounting = (await readFile(join(out, "slurm-accounting.txt"), "utf8")).trim().split("\n");
      expect(accounting).toHaveLength(3);
      for (const line of accounting.slice(1)) expect(line).toMatch(/train-merge-\d\|COMPLETED\|0:0\|/);
      const files = await readdir(out);
      for (const file of ["slurm-level-1-1.log", "slurm-level-2-1.log", "results.json", "tree.png"])
        expect(files).toContain(file);
      expect(await readFile(join(out, "slurm-level-2-1.log"), "utf8")).toMatch(/step 4\/4/);
      expect((await tree("--out", out)).stderr).toMatch(/is finished already/);
    }, 180_000);

    test("what sbatch refuses is one line", async () => {
      const { code, stderr } = await tree(
        "--seed",
        "1",
        "--slurm-option=--partition=nowhere",
        "--out",
        join(folder, "refused"),
      );
      expect(code).toBe(1);
      expect(stderr.trim().split("\n").at(-1)).toMatch(
        /^train-merge: --executor slurm: sbatch says: .*partition/,
      );
      expect(existsSync(join(folder, "refused", "results.json"))).toBe(false);
    }, 60_000);
  },
);
