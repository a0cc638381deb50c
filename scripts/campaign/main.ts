/**
 * Damages inputs of every kind, seeded, and counts how they are taken: refused in a line, taken, or otherwise.
 *
 *   node dist/scripts/campaign/main.js [--inputs 20000] [--seed 1] [--only NAME] [--jobs 2] [--json FILE]
 *
 * Exit code 1 where one input ends in a fault, a bare RangeError or a hang, where what is known to be damaged is taken,
 * a message has several lines or over 500 characters, or a process needs 1 GB.
 */
import { fork } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { makeWhole } from "./setup.js";
import { familiesTried, targetsOf } from "./targets.js";
import type { Told } from "./worker.js";

const { values: o } = parseArgs({
  options: {
    inputs: { type: "string", default: "20000" },
    seed: { type: "string", default: "1" },
    only: { type: "string", default: "" },
    jobs: { type: "string", default: "2" },
    json: { type: "string" },
  },
});
/** After so long without an answer an input counts as a hang. */
const patience = 10_000;
const mostBytes = 1e9;

interface Count {
  readonly name: string;
  inputs: number;
  refused: number;
  taken: number;
  damagedTaken: number;
  faults: number;
  rangeErrors: number;
  hangs: number;
  died: number;
  longMessages: number;
  peakBytes: number;
}

const folder = await mkdtemp(join(tmpdir(), "train-merge-campaign-"));
const worker = fileURLToPath(new URL("worker.js", import.meta.url));
const bad: string[] = [];

/** Runs attempts `from` to before `to` in a process. @returns the one at which it ended early */
function runFrom(count: Count, index: number, from: number, to: number): Promise<number> {
  return new Promise((resolve) => {
    const child = fork(worker, [folder, String(index), o.seed, String(from), String(to)], {
      execArgv: ["--max-old-space-size=900"],
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    let said = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(-2000);
    });
    let current: Told | undefined;
    let isHung = false;
    let timer: NodeJS.Timeout | undefined;
    const note = (what: string, told: Told) =>
      bad.push(
        `${count.name} ${told.number}: ${what}: ${told.how}${told.message ? `\n    ${told.message}` : ""}`,
      );
    child.on("message", (told: Told) => {
      clearTimeout(timer);
      current = undefined;
      if (told.outcome === undefined) {
        current = told;
        timer = setTimeout(() => {
          isHung = true;
          child.kill("SIGKILL");
        }, patience);
        return;
      }
      if (told.number < 0) {
        if (told.outcome !== "taken") note("the whole input is not taken", told);
        return;
      }
      count.inputs++;
      count.peakBytes = Math.max(count.peakBytes, told.peakBytes ?? 0);
      if (told.outcome === "refused") count.refused++;
      if (told.outcome === "taken") count.taken++;
      if (told.outcome === "taken" && told.mustRefuse) {
        count.damagedTaken++;
        note("damaged, and taken", told);
      }
      if (told.outcome === "fault") count.faults++;
      if (told.outcome === "RangeError") count.rangeErrors++;
      if (told.outcome === "fault" || told.outcome === "RangeError") note(told.outcome, told);
      const { message = "" } = told;
      if (told.outcome === "refused" && (/[\n\r]/.test(message) || message.length > 500)) {
        count.longMessages++;
        note("a message of several lines, or a long one", told);
      }
    });
    child.on("exit", (code) => {
      clearTimeout(timer);
      if (!current && code === 0) return resolve(to);
      if (!current) {
        count.died++;
        bad.push(`${count.name}: its process ended with ${code} between two inputs\n${said}`);
        return resolve(to);
      }
      count.inputs++;
      if (isHung) count.hangs++;
      else count.died++;
      note(isHung ? `no answer in ${patience / 1000} s` : "the process died", current);
      resolve(current.number + 1);
    });
  });
}

const targets = await targetsOf();
const total = targets.reduce((sum, { share }) => sum + share, 0);
const counts: Count[] = [];
try {
  await makeWhole(join(folder, "whole"), familiesTried);
  const queue = [...targets.entries()].filter(([, { name }]) => name.includes(o.only));
  const work = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const [index, { name, share }] = next;
      const count: Count = {
        name,
        inputs: 0,
        refused: 0,
        taken: 0,
        damagedTaken: 0,
        faults: 0,
        rangeErrors: 0,
        hangs: 0,
        died: 0,
        longMessages: 0,
        peakBytes: 0,
      };
      counts.push(count);
      const inputs = Math.ceil((Number(o.inputs) * share) / total);
      for (let from = -1; from < inputs;) from = await runFrom(count, index, from, inputs);
      process.stderr.write(`${name}: ${count.inputs} inputs\n`);
    }
  };
  await Promise.all(Array.from({ length: Number(o.jobs) }, work));
} finally {
  await rm(folder, { recursive: true, force: true });
}

const heads = [
  "inputs",
  "refused in a line",
  "taken",
  "damaged and taken",
  "faults",
  "RangeErrors",
  "hangs",
  "died",
  "long messages",
  "peak MB",
];
const cells = (count: Count) => [
  count.inputs,
  count.refused,
  count.taken,
  count.damagedTaken,
  count.faults,
  count.rangeErrors,
  count.hangs,
  count.died,
  count.longMessages,
  Math.round(count.peakBytes / 1e6),
];
const lines = counts.map((count) => `| ${count.name} | ${cells(count).join(" | ")} |`);
process.stdout.write(
  `${[`| input | ${heads.join(" | ")} |`, `|---|${heads.map(() => "--:").join("|")}|`, ...lines].join("\n")}\n`,
);
if (bad.length) process.stdout.write(`\n${bad.join("\n")}\n`);
if (o.json !== undefined)
  await writeFile(o.json, `${JSON.stringify({ seed: o.seed, counts, bad }, undefined, 1)}\n`);
process.exitCode = bad.length || counts.some(({ peakBytes }) => peakBytes > mostBytes) ? 1 : 0;
