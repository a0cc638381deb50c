import { execFile } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { slurmFile, type SubmittedJobs } from "../folder/tree-files.js";
import { main, type Executor } from "./executors.js";

const run = promisify(execFile);

async function slurm(command: string, args: string[]): Promise<string> {
  try {
    return (await run(command, args)).stdout.trim();
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    if (code === "ENOENT")
      throw new UserError(
        `--executor slurm: there is no ${command} on this machine; run it where SLURM's commands are`,
      );
    throw new UserError(
      `--executor slurm: ${command} says: ${(stderr ?? String(error)).trim().split("\n")[0]}`,
    );
  }
}

/** sbatch's way of writing a time limit. */
const clock = (seconds: number): string =>
  `${Math.floor(seconds / 3600)}:${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")}:00`;
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

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

/**
 * Submits each level of the tree as one array of jobs that waits for the level below (`afterok`), and reads logs and
 * accounting back. Jobs are remembered in `folder`/slurm.json: who starts again while they run waits
 * for the same ones, and submits the levels that are missing.
 * @param key says which tree it is
 * @param extra options handed to sbatch, such as --partition=gpu
 */
export const slurmExecutor =
  (folder: string, key: string, extra: readonly string[]): Executor =>
  async (jobs, { note, line, stopping }) => {
    const levels = [...new Set(jobs.map(({ level }) => level))].sort((a, b) => a - b);
    const before = await slurmFile.readIfSound(folder);
    const alive = before?.key === key && (await queue(before.submitted)).length > 0;
    const submitted: SubmittedJobs = alive ? before.submitted : [];
    if (alive) note(`jobs ${submitted.map(({ job }) => job).join(", ")} are still there: waiting for them`);
    for (const level of levels.filter((one) => !submitted.some((s) => s.level === one))) {
      const mine = jobs.filter((job) => job.level === level);
      const list = join(folder, `slurm-level-${level}.txt`);
      await writeText(list, mine.map(({ path }) => `${path}\n`).join(""));
      const script = join(folder, `slurm-level-${level}.sh`);
      await writeText(
        script,
        `#!/bin/sh\nexec ${quoted(process.execPath)} ${quoted(main)} node "$(sed -n ` +
          `"\${SLURM_ARRAY_TASK_ID}p" ${quoted(list)})"\n`,
      );
      const below = submitted.at(-1);
      const job = (
        await slurm("sbatch", [
          "--parsable",
          `--job-name=train-merge-${level}`,
          `--array=1-${mine.length}`,
          "--nodes=1",
          "--ntasks=1",
          `--mem=${Math.ceil((1.5 * Math.max(...mine.map(({ memory }) => memory))) / 1e6 + 1000)}M`,
          `--time=${clock(600 + 3 * Math.max(...mine.map(({ seconds }) => seconds)))}`,
          `--chdir=${process.cwd()}`,
          `--output=${join(folder, `slurm-level-${level}-%a.log`)}`,
          ...(below ? [`--dependency=afterok:${below.job}`, "--kill-on-invalid-dep=yes"] : []),
          ...extra,
          script,
        ])
      ).split(";")[0]!;
      submitted.push({ level, job, ids: mine.map(({ id }) => id) });
      await slurmFile.write(folder, { key, submitted });
      note(
        `level ${level}: job ${job}, ${mine.length} ` +
          `node${mine.length > 1 ? "s" : ""}${below ? `, after ${below.job}` : ""}`,
      );
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
