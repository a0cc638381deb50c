import { execFile, spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { readJson, writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { packageFolder } from "../package.js";

/** A node that is to be run: its node.json, and what the plan says it takes. */
export interface NodeJob {
  readonly id: string;
  readonly level: number;
  readonly path: string;
  readonly after: readonly string[];
  /** Bytes of device and host memory together, and seconds, as predicted. */
  readonly memory: number;
  readonly seconds: number;
}

export interface ExecutorHooks {
  note(message: string): void;
  /** A line that a node printed. */
  line(id: string, text: string): void;
  stopping(): boolean;
}

/** Runs nodes, children before parents. Returns whether all are done; false where it was asked to stop. */
export type Executor = (jobs: readonly NodeJob[], hooks: ExecutorHooks) => Promise<boolean>;

const main = join(packageFolder, "dist", "src", "cli", "main.js");
/** The exit code of a node that was asked to stop and left its state. */
const stoppedCode = 130;

/** Each node in a process of its own, so that its memory is its own and gone afterwards; `most` side by side. */
export const localExecutor = (most: number): Executor => async (jobs, { line, stopping }) => {
  const waiting = new Set(jobs);
  const done = new Set<string>();
  const known = new Set(jobs.map(({ id }) => id));
  const running = new Map<string, { child: ChildProcess; ended: Promise<string>; asked?: boolean }>();
  const codes = new Map<string, number>();
  let failure: { id: string; last: string } | undefined;
  const start = (job: NodeJob) => {
    // The channel tells a node that its parent is gone, even when that was killed.
    const child = spawn(process.execPath, [main, "node", job.path], { stdio: ["ignore", "ignore", "pipe", "ipc"] });
    let last = "";
    createInterface({ input: child.stderr! }).on("line", (text) => {
      last = text.startsWith("train-merge:") ? text : last;
      line(job.id, text);
    });
    const ended = new Promise<string>((resolve) => child.on("close", (code) => {
      codes.set(job.id, code ?? 1);
      if (code !== 0 && code !== stoppedCode) failure ??= { id: job.id, last: last || `train-merge: it ended with code ${code}` };
      resolve(job.id);
    }));
    running.set(job.id, { child, ended });
  };
  for (;;) {
    const halted = stopping() || failure !== undefined;
    if (halted) {
      // Once: a second signal would not wait for the step to end.
      for (const one of running.values()) {
        if (!one.asked) one.child.kill("SIGTERM");
        one.asked = true;
      }
    } else {
      const ready = [...waiting].filter(({ after }) => after.every((id) => done.has(id) || !known.has(id)));
      for (const job of ready.slice(0, Math.max(0, most - running.size))) {
        waiting.delete(job);
        start(job);
      }
    }
    if (running.size === 0) break;
    // A signal may come to this process alone: look again now and then.
    const ended = await Promise.race([...[...running.values()].map((one) => one.ended), sleep(250)]);
    if (ended === undefined) continue;
    running.delete(ended);
    if (codes.get(ended) === 0) done.add(ended);
    else if (codes.get(ended) === stoppedCode && !stopping()) failure ??= { id: ended, last: "train-merge: it was stopped" };
  }
  if (failure) throw new UserError(`node ${failure.id}: ${failure.last.replace(/^train-merge: /, "")}`);
  return done.size === jobs.length;
};

const run = promisify(execFile);

async function slurm(command: string, args: string[]): Promise<string> {
  try {
    return (await run(command, args)).stdout.trim();
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    if (code === "ENOENT") throw new UserError(`--executor slurm: there is no ${command} on this machine; run it where SLURM's commands are`);
    throw new UserError(`--executor slurm: ${command} says: ${(stderr ?? String(error)).trim().split("\n")[0]}`);
  }
}

/** sbatch's way of writing a time limit. */
const clock = (seconds: number): string => `${Math.floor(seconds / 3600)}:${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")}:00`;
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

interface Submitted { readonly level: number; readonly job: string; readonly ids: readonly string[] }

/**
 * Submits each level of the tree as one array of jobs that waits for the level below (`afterok`), and reads logs and
 * accounting back. Jobs are remembered in `folder`/slurm.json: who starts again while they run waits for the same ones.
 * @param extra options handed to sbatch, such as --partition=gpu
 */
export const slurmExecutor = (folder: string, extra: readonly string[]): Executor => async (jobs, { note, line, stopping }) => {
  const state = join(folder, "slurm.json");
  const levels = [...new Set(jobs.map(({ level }) => level))].sort((a, b) => a - b);
  const queue = async (ids: readonly Submitted[]) => (ids.length ? (await slurm("squeue", ["--noheader", "--format=%A %T %r", `--jobs=${ids.map(({ job }) => job).join(",")}`]).catch(() => "")).split("\n").filter(Boolean) : []);
  let submitted: Submitted[] = existsSync(state) ? ((await readJson(state)) as { submitted: Submitted[] }).submitted : [];
  if ((await queue(submitted)).length === 0) {
    submitted = [];
    for (const level of levels) {
      const mine = jobs.filter((job) => job.level === level);
      const list = join(folder, `slurm-level-${level}.txt`);
      await writeText(list, mine.map(({ path }) => `${path}\n`).join(""));
      const script = join(folder, `slurm-level-${level}.sh`);
      await writeText(script, [
        "#!/bin/sh", `exec ${quoted(process.execPath)} ${quoted(main)} node "$(sed -n "\${SLURM_ARRAY_TASK_ID}p" ${quoted(list)})"`, "",
      ].join("\n"));
      const below = submitted.at(-1);
      const args = [
        "--parsable", `--job-name=train-merge-${level}`, `--array=1-${mine.length}`, "--nodes=1", "--ntasks=1",
        `--mem=${Math.ceil((1.5 * Math.max(...mine.map(({ memory }) => memory))) / 1e6 + 1000)}M`, `--time=${clock(600 + 3 * Math.max(...mine.map(({ seconds }) => seconds)))}`,
        `--chdir=${process.cwd()}`, `--output=${join(folder, `slurm-level-${level}-%a.log`)}`, ...(below ? [`--dependency=afterok:${below.job}`, "--kill-on-invalid-dep=yes"] : []), ...extra, script,
      ];
      const job = (await slurm("sbatch", args)).split(";")[0]!;
      submitted.push({ level, job, ids: mine.map(({ id }) => id) });
      note(`level ${level}: job ${job}, ${mine.length} node${mine.length > 1 ? "s" : ""}${below ? `, after ${below.job}` : ""}`);
      await writeText(state, { submitted });
    }
  } else {
    note(`jobs ${submitted.map(({ job }) => job).join(", ")} are still there: waiting for them`);
  }
  for (let last = ""; ; await sleep(2000)) {
    const waiting = await queue(submitted);
    if (waiting.length === 0) break;
    // Stopping leaves the jobs to the cluster; the same command waits for them again.
    if (stopping()) return false;
    const now = waiting.join("; ");
    if (now !== last) line("slurm", now);
    last = now;
  }
  const took = await accounting(submitted);
  note(took);
  await writeText(join(folder, "slurm-accounting.txt"), `${took}\n`);
  return true;
};

/** What SLURM says the jobs took, a line a job: from its accounting, or where it keeps none, from the jobs it still remembers. */
async function accounting(submitted: readonly Submitted[]): Promise<string> {
  const ids = submitted.map(({ job }) => job).join(",");
  const kept = await slurm("sacct", ["--parsable2", `--jobs=${ids}`, "--format=JobID,JobName,State,ExitCode,Elapsed,MaxRSS,ReqMem,NodeList"]).catch(() => "");
  if (kept.split("\n").length > 1) return kept;
  const fields = ["JobId", "ArrayTaskId", "JobName", "JobState", "ExitCode", "RunTime", "TRES", "NodeList"];
  const lines = [fields.join("|")];
  for (const { job } of submitted) {
    const shown = await slurm("scontrol", ["show", "job", "--oneliner", job]).catch(() => `JobId=${job}`);
    for (const line of shown.split("\n")) lines.push(fields.map((field) => new RegExp(`(?:^|\\s)${field}=(\\S*)`).exec(line)?.[1] ?? "").join("|"));
  }
  return lines.join("\n");
}
