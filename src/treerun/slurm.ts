import { execFile } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { z } from "zod";
import { writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { slurmFile, type SubmittedJobs } from "../folder/tree-files.js";
import { main, type Executor, type ExecutorHooks, type NodeJob } from "./executors.js";

const execute = promisify(execFile);

/** What Node says of a command that failed. */
const failedCommand = z.object({ code: z.unknown(), stderr: z.string().optional() });

async function slurm(command: string, args: string[]): Promise<string> {
  try {
    return (await execute(command, args)).stdout.trim();
  } catch (error) {
    const { data: failed } = failedCommand.safeParse(error);
    if (failed?.code === "ENOENT")
      throw new UserError(
        `--executor slurm: there is no ${command} on this machine; run it where SLURM's commands are`,
      );
    const [first] = (failed?.stderr ?? String(error)).trim().split("\n");
    throw new UserError(`--executor slurm: ${command} says: ${first}`);
  }
}

/** sbatch's way of writing a time limit. */
const timeLimit = (seconds: number): string =>
  `${Math.floor(seconds / 3600)}:${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")}:00`;
const shellQuoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** Jobs that SLURM still has, a line each. A controller that does not answer is asked again for five minutes. */
async function queue(submitted: SubmittedJobs): Promise<string[]> {
  if (submitted.length === 0) return [];
  for (let tries = 0; ; tries++) {
    try {
      return (
        await slurm("squeue", [
          "--noheader",
          "--format=%A %T %r",
          `--jobs=${submitted.map(({ job }) => job).join(",")}`,
        ])
      )
        .split("\n")
        .filter(Boolean);
    } catch (error) {
      // Jobs that are long gone are not known any more.
      if (/invalid job id/i.test(String(error))) return [];
      if (tries >= 30 || /there is no squeue/.test(String(error))) throw error;
      await sleep(10_000);
    }
  }
}

/** Refuses to touch a folder whose nodes another tree's jobs are still running. */
export async function refuseOthers(folder: string, key: string): Promise<void> {
  const before = await slurmFile.readIfSound(folder);
  if (!before || before.key === key) return;
  if ((await queue(before.submitted)).length) {
    const ids = before.submitted.map(({ job }) => job);
    throw new UserError(
      `${folder}: jobs ${ids.join(", ")} of a tree with other settings or inputs are still ` +
        `there; wait for them, cancel them (scancel ${ids.join(" ")}), or choose another --out`,
    );
  }
}

/** Submits one level's nodes as an array of jobs. @param below the level that they wait for */
async function submitLevel(
  folder: string,
  level: number,
  nodes: readonly NodeJob[],
  { below, extra }: { readonly below: SubmittedJobs[number] | undefined; readonly extra: readonly string[] },
): Promise<SubmittedJobs[number]> {
  const list = join(folder, `slurm-level-${level}.txt`);
  await writeText(list, nodes.map(({ path }) => `${path}\n`).join(""));
  const script = join(folder, `slurm-level-${level}.sh`);
  await writeText(
    script,
    `#!/bin/sh\nexec ${shellQuoted(process.execPath)} ${shellQuoted(main)} node "$(sed -n ` +
      `"\${SLURM_ARRAY_TASK_ID}p" ${shellQuoted(list)})"\n`,
  );
  const memory = Math.max(...nodes.map((node) => node.memory));
  const seconds = Math.max(...nodes.map((node) => node.seconds));
  const waits = below && [`--dependency=afterok:${below.job}`, "--kill-on-invalid-dep=yes"];
  const answer = await slurm("sbatch", [
    "--parsable",
    `--job-name=train-merge-${level}`,
    `--array=1-${nodes.length}`,
    "--nodes=1",
    "--ntasks=1",
    `--mem=${Math.ceil((1.5 * memory) / 1e6 + 1000)}M`,
    `--time=${timeLimit(600 + 3 * seconds)}`,
    `--chdir=${process.cwd()}`,
    `--output=${join(folder, `slurm-level-${level}-%a.log`)}`,
    ...(waits ?? []),
    ...extra,
    script,
  ]);
  // "job", or "job;cluster".
  const [job = answer] = answer.split(";");
  return { level, job, ids: nodes.map(({ id }) => id) };
}

/** Waits until SLURM has none of the jobs any more. @returns false where it was asked to stop */
async function waitFor(submitted: SubmittedJobs, { line, stopping }: ExecutorHooks): Promise<boolean> {
  for (let last = ""; ; await sleep(2000)) {
    const waiting = await queue(submitted);
    if (waiting.length === 0) return true;
    // Stopping leaves the jobs to the cluster; the same command waits for them again.
    if (stopping()) return false;
    const now = waiting.join("; ");
    if (now !== last) line("slurm", now);
    last = now;
  }
}

/**
 * Submits each level of the tree as one array of jobs that waits for the level below (`afterok`), and reads logs and
 * accounting back. Jobs are remembered in `folder`/slurm.json: who starts again while they run waits
 * for the same ones, and submits the levels that are missing.
 * @param key says which tree it is
 * @param extra options handed to sbatch, such as --partition=gpu
 */
export const slurmExecutor =
  (folder: string, key: string, extra: readonly string[]): Executor =>
  async (jobs, hooks) => {
    const { note } = hooks;
    const submitted: SubmittedJobs = [];
    const before = await slurmFile.readIfSound(folder);
    if (before?.key === key && (await queue(before.submitted)).length > 0) {
      submitted.push(...before.submitted);
      note(`jobs ${submitted.map(({ job }) => job).join(", ")} are still there: waiting for them`);
    }
    const levels = [...new Set(jobs.map(({ level }) => level))].sort((a, b) => a - b);
    for (const level of levels.filter((one) => !submitted.some((job) => job.level === one))) {
      const below = submitted.at(-1);
      const nodes = jobs.filter((job) => job.level === level);
      const job = await submitLevel(folder, level, nodes, { below, extra });
      submitted.push(job);
      await slurmFile.write(folder, { key, submitted });
      const after = below ? `, after ${below.job}` : "";
      note(`level ${level}: job ${job.job}, ${nodes.length} node${nodes.length > 1 ? "s" : ""}${after}`);
    }
    if (!(await waitFor(submitted, hooks))) return false;
    const took = await accounting(submitted);
    note(took);
    await writeText(join(folder, "slurm-accounting.txt"), `${took}\n`);
    return true;
  };

/**
 * What SLURM says the jobs took, a line a job: from its accounting, or where it keeps none, from the
 * jobs it still remembers.
 */
async function accounting(submitted: SubmittedJobs): Promise<string> {
  const ids = submitted.map(({ job }) => job).join(",");
  const kept = await slurm("sacct", [
    "--parsable2",
    `--jobs=${ids}`,
    "--format=JobID,JobName,State,ExitCode,Elapsed,MaxRSS,ReqMem,NodeList",
  ]).catch(() => "");
  if (kept.split("\n").length > 1) return kept;
  const fields = ["JobId", "ArrayTaskId", "JobName", "JobState", "ExitCode", "RunTime", "TRES", "NodeList"];
  const lines = [fields.join("|")];
  for (const { job } of submitted) {
    const shown = await slurm("scontrol", ["show", "job", "--oneliner", job]).catch(() => `JobId=${job}`);
    for (const line of shown.split("\n"))
      lines.push(
        fields.map((field) => new RegExp(`(?:^|\\s)${field}=(\\S*)`).exec(line)?.[1] ?? "").join("|"),
      );
  }
  return lines.join("\n");
}
