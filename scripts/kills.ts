/**
 * Kills a command at random moments, over and over, starts it again each time, and compares every byte of what comes
 * out with an unbroken run's (but for files that hold times). What a kill left lying about counts as a difference.
 *
 *   node dist/scripts/kills.js [--command train,merge,tree,compare,finetune] [--kills 50] [--seed 1]
 *     [--tasks cb,copa,trec6] [--steps 10] [--backend wasm]
 *
 * `--kills` are for each command.
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import seedrandom from "seedrandom";

const { values: o } = parseArgs({
  options: {
    command: { type: "string", default: "tree" },
    kills: { type: "string", default: "50" },
    seed: { type: "string", default: "1" },
    tasks: { type: "string", default: "cb,copa,trec6" },
    steps: { type: "string", default: "10" },
    backend: { type: "string", default: "wasm" },
  },
});
const random = seedrandom(o.seed);
const folder = await mkdtemp(join(tmpdir(), "train-merge-kills-"));
// What ships has no training files: the validation examples stand in for them.
const data = join(folder, "data");
await cp(join("data", "mini"), data, { recursive: true });
await cp(join(data, "cb", "validation.jsonl"), join(data, "cb", "train.jsonl"));
const timed = new Set(["run.json", "report.html", "plan.json", "tree.svg", "tree.png", "table.md"]);

/** A comparison's records say how long each method took: these lines are left out. */
const withoutTimes = (bytes: Buffer, file: string): Buffer | string =>
  file.endsWith(".json")
    ? JSON.stringify(JSON.parse(bytes.toString()), (key, value: unknown) =>
        key === "seconds" || key === "times" ? undefined : value,
      )
    : bytes;

const placed = ["--residency", "device", "--blocks", "off", "--backend", o.backend];
const experts = ["cb", "copa", "trec6"].map((task) => join("checkpoints", "mini", "experts", task));
const family = ["--base", join("checkpoints", "mini", "base"), "--experts", ...experts];

/** What is run, and what goes on from where it was killed. */
const commands: Readonly<Record<string, { readonly args: readonly string[]; readonly again?: string }>> = {
  train: { args: ["--tasks", o.tasks, "--steps", o.steps, ...placed], again: "--resume" },
  merge: { args: ["merge", "--method", "dare", ...family, "--threads", "1"], again: "--overwrite" },
  tree: {
    args: [
      "tree",
      "--tasks",
      o.tasks,
      "--steps",
      o.steps,
      "--jobs",
      "2",
      "--keep-nodes",
      "--polish",
      "10",
      ...placed,
    ],
  },
  compare: {
    args: [
      "compare",
      "--tasks",
      o.tasks,
      "--methods",
      "average,ties,supermerge",
      "--steps",
      o.steps,
      ...placed,
    ],
  },
  finetune: {
    args: [
      "finetune",
      "--task",
      "cb",
      "--data",
      data,
      "--epochs",
      "3",
      "--most",
      "48",
      "--backend",
      o.backend,
    ],
    again: "--resume",
  },
};

/** A command that is killed. */
interface Killed {
  readonly args: readonly string[];
  readonly again?: string | undefined;
}

const start = ({ args, again }: Killed, out: string, isAgain: boolean) =>
  spawn(
    process.execPath,
    ["dist/src/cli/main.js", ...args, "--out", out, ...(isAgain && again !== undefined ? [again] : [])],
    { stdio: ["ignore", "ignore", "pipe"], detached: true },
  );

/**
 * Runs to the end, or kills after some milliseconds: the process alone (its nodes must notice) or all
 * of its group.
 */
async function run(
  command: Killed,
  out: string,
  { isAgain = false, killAfter }: { isAgain?: boolean; killAfter?: number | undefined } = {},
): Promise<{ finished: boolean; seconds: number; text: string }> {
  const [child, from] = [start(command, out, isAgain), performance.now()];
  let text = "";
  child.stderr.on("data", (bytes: Buffer) => (text += bytes.toString()));
  const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
  const stop = new AbortController();
  const kill =
    killAfter === undefined
      ? undefined
      : sleep(killAfter, undefined, { signal: stop.signal }).then(
          () => (random() < 0.5 ? child.kill("SIGKILL") : process.kill(-child.pid!, "SIGKILL")),
          () => {},
        );
  const code = await ended;
  stop.abort();
  await kill;
  if (code !== 0 && code !== null) throw new Error(`it ended with code ${code}:\n${text.slice(-2000)}`);
  return { finished: code === 0, seconds: (performance.now() - from) / 1000, text };
}

/** Every file's hash but those with times in them; what a kill left half-written counts too. */
async function hashes(out: string): Promise<Map<string, string>> {
  const files = (await readdir(out, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && !timed.has(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  return new Map(
    await Promise.all(
      files.map(
        async (file) =>
          [
            relative(out, file),
            createHash("sha256")
              .update(withoutTimes(await readFile(file), file))
              .digest("hex"),
          ] as const,
      ),
    ),
  );
}

/** Kills one command, so many times in all. @returns how many files were not as they should be */
async function killed(name: string, most: number): Promise<number> {
  const command = commands[name];
  if (!command) throw new Error(`--command ${name}: there are ${Object.keys(commands).join(", ")}`);
  const unbroken = join(folder, `${name}-unbroken`);
  const { seconds } = await run(command, unbroken);
  const expected = await hashes(unbroken);
  console.log(`${name}, unbroken: ${seconds.toFixed(0)} s, ${expected.size} files`);
  let [kills, runs, differing] = [0, 0, 0];
  while (kills < most) {
    const out = join(folder, `${name}-${runs++}`);
    for (let isAgain = false; ; isAgain = true) {
      const killAfter = kills < most ? 300 + random() * 1000 * seconds * 1.1 : undefined;
      const { finished } = await run(command, out, { isAgain, killAfter });
      if (finished) break;
      kills++;
    }
    const found = await hashes(out);
    const wrong = [...new Set([...expected.keys(), ...found.keys()])].filter(
      (file) => expected.get(file) !== found.get(file),
    );
    differing += wrong.length;
    if (wrong.length) console.log(`${basename(out)}: ${kills} kills so far, DIFFERENT: ${wrong.join(", ")}`);
    await rm(out, { recursive: true });
  }
  console.log(`${name}: ${kills} kills over ${runs} runs, ${differing} files different`);
  return differing;
}

let differing = 0;
for (const name of o.command.split(",")) differing += await killed(name, Number(o.kills));
await rm(folder, { recursive: true });
process.exit(differing ? 1 : 0);
