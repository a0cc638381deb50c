/**
 * Kills a tree run at random moments, over and over, starts it again each time, and compares every byte
 * of what comes out with an unbroken run's (but for run.json, plan.json and the picture, which hold
 * times).
 *
 *   node dist/scripts/kills.js [--kills 50] [--seed 1] [--tasks cb,copa,trec6] [--steps 10] [--backend wasm]
 */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import seedrandom from "seedrandom";

const { values: o } = parseArgs({
  options: {
    kills: { type: "string", default: "50" },
    seed: { type: "string", default: "1" },
    tasks: { type: "string", default: "cb,copa,trec6" },
    steps: { type: "string", default: "10" },
    backend: { type: "string", default: "wasm" },
  },
});
const random = seedrandom(o.seed);
const folder = await mkdtemp(join(tmpdir(), "train-merge-kills-"));
const timed = new Set(["run.json", "report.html", "plan.json", "tree.svg", "tree.png"]);

const start = (out: string) =>
  spawn(
    process.execPath,
    [
      "dist/src/cli/main.js",
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
      "--residency",
      "device",
      "--blocks",
      "off",
      "--backend",
      o.backend,
      "--out",
      out,
    ],
    { stdio: ["ignore", "ignore", "pipe"], detached: true },
  );

/**
 * Runs to the end, or kills after some milliseconds: the process alone (its nodes must notice) or all
 * of its group.
 */
async function run(
  out: string,
  killAfter?: number,
): Promise<{ finished: boolean; seconds: number; text: string }> {
  const [child, from] = [start(out), performance.now()];
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
              .update(await readFile(file))
              .digest("hex"),
          ] as const,
      ),
    ),
  );
}

const unbroken = join(folder, "unbroken");
const { seconds } = await run(unbroken);
const expected = await hashes(unbroken);
console.log(`unbroken: ${seconds.toFixed(0)} s, ${expected.size} files`);
let [kills, trees, differing] = [0, 0, 0];
while (kills < Number(o.kills)) {
  const out = join(folder, `tree-${trees++}`);
  for (;;) {
    const { finished } = await run(
      out,
      kills < Number(o.kills) ? 300 + random() * 1000 * seconds * 1.1 : undefined,
    );
    if (finished) break;
    kills++;
  }
  const found = await hashes(out);
  const wrong = [...new Set([...expected.keys(), ...found.keys()])].filter(
    (file) => expected.get(file) !== found.get(file),
  );
  differing += wrong.length;
  console.log(
    `${basename(out)}: ${kills} kills so far, ` +
      (wrong.length ? `DIFFERENT: ${wrong.join(", ")}` : `all ${found.size} files equal`),
  );
  await rm(out, { recursive: true });
}
await rm(folder, { recursive: true });
console.log(`${kills} kills over ${trees} trees, ${differing} files different`);
process.exit(differing ? 1 : 0);
