import { spawn } from "node:child_process";
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

/** How a node's process ended. */
interface Ending {
  readonly id: string;
  readonly code: number;
  /** Its last message, or what else is known. */
  readonly message: string;
}

interface NodeProcess {
  readonly ended: Promise<Ending>;
  /** Asks it to stop, once: a second signal would not wait for the step to end. */
  stop(): void;
}

/** Starts `train-merge node` in a process of its own. */
function startNode({ id, path }: NodeJob, line: ExecutorHooks["line"]): NodeProcess {
  // The channel tells a node that its parent is gone, even when that was killed.
  const child = spawn(process.execPath, [main, "node", path], { stdio: ["ignore", "ignore", "pipe", "ipc"] });
  let message = "";
  if (child.stderr)
    createInterface({ input: child.stderr }).on("line", (text) => {
      if (text.startsWith(prefix)) message = text.slice(prefix.length);
      line(id, text);
    });
  const ended = new Promise<Ending>((resolve) => {
    child.on("error", ({ message: why }) =>
      resolve({ id, code: 1, message: `its process could not be started (${why})` }),
    );
    child.on("close", (code) =>
      resolve({ id, code: code ?? 1, message: message || `it ended with code ${code}` }),
    );
  });
  let asked = false;
  const stop = () => {
    if (!asked) child.kill("SIGTERM");
    asked = true;
  };
  return { ended, stop };
}

const prefix = "train-merge: ";

/** Each node in a process of its own, so that its memory is its own and gone afterwards; `most` side by side. */
export const localExecutor =
  (most: number): Executor =>
  async (jobs, { line, stopping }) => {
    const waiting = new Set(jobs);
    const done = new Set<string>();
    const known = new Set(jobs.map(({ id }) => id));
    const running = new Map<string, NodeProcess>();
    let failure: Ending | undefined;
    const isReady = ({ after }: NodeJob) => after.every((id) => done.has(id) || !known.has(id));
    for (;;) {
      if (stopping() || failure) running.forEach((node) => node.stop());
      else
        for (const job of [...waiting].filter(isReady).slice(0, Math.max(0, most - running.size))) {
          waiting.delete(job);
          running.set(job.id, startNode(job, line));
        }
      if (running.size === 0) break;
      // A signal may come to this process alone: look again now and then.
      const ended = await Promise.race([...[...running.values()].map((node) => node.ended), sleep(250)]);
      if (ended === undefined) continue;
      running.delete(ended.id);
      if (ended.code === 0) done.add(ended.id);
      else if (ended.code !== stoppedCode) failure ??= ended;
      else if (!stopping()) failure ??= { ...ended, message: "it was stopped" };
    }
    if (failure) throw new UserError(`node ${failure.id}: ${failure.message}`);
    return done.size === jobs.length;
  };
