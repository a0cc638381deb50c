import { spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { UserError, stoppedCode } from "../errors.js";
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

export const main = join(packageFolder, "dist", "src", "cli", "main.js");

/** Each node in a process of its own, so that its memory is its own and gone afterwards; `most` side by side. */
export const localExecutor =
  (most: number): Executor =>
  async (jobs, { line, stopping }) => {
    const waiting = new Set(jobs);
    const done = new Set<string>();
    const known = new Set(jobs.map(({ id }) => id));
    const running = new Map<string, { child: ChildProcess; ended: Promise<string>; asked?: boolean }>();
    const codes = new Map<string, number>();
    let failure: { id: string; last: string } | undefined;
    const start = (job: NodeJob) => {
      // The channel tells a node that its parent is gone, even when that was killed.
      const child = spawn(process.execPath, [main, "node", job.path], {
        stdio: ["ignore", "ignore", "pipe", "ipc"],
      });
      let last = "";
      createInterface({ input: child.stderr! }).on("line", (text) => {
        last = text.startsWith("train-merge:") ? text : last;
        line(job.id, text);
      });
      const ended = new Promise<string>((resolve) =>
        child
          .on("error", (error) => {
            failure ??= {
              id: job.id,
              last: `train-merge: its process could not be started (${error.message})`,
            };
            resolve(job.id);
          })
          .on("close", (code) => {
            codes.set(job.id, code ?? 1);
            if (code !== 0 && code !== stoppedCode)
              failure ??= { id: job.id, last: last || `train-merge: it ended with code ${code}` };
            resolve(job.id);
          }),
      );
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
      else if (codes.get(ended) === stoppedCode && !stopping())
        failure ??= { id: ended, last: "train-merge: it was stopped" };
    }
    if (failure) throw new UserError(`node ${failure.id}: ${failure.last.replace(/^train-merge: /, "")}`);
    return done.size === jobs.length;
  };
