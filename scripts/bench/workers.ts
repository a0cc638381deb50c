/** Starts and asks the processes that step.ts measures. */
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { z } from "zod";
import { packageFolder } from "../../src/package.js";
import type { Case } from "./cases.js";
import { pythonEnvironment, reasonIn } from "./processes.js";

/** One of those that are measured beside each other. */
export interface Side {
  readonly name: string;
  /** A way of PyTorch, as torch_peers.py names it; of an engine of ours undefined. */
  readonly peer?: string | undefined;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

export interface Worker {
  /** Sends a request, if there is one, and reads the next answer. @throws Error where the process has ended */
  ask<T>(schema: z.ZodType<T>, request?: object): Promise<T>;
  /** Ends it, and waits until its memory is free. */
  stop(): Promise<void>;
}

/** An engine of ours. */
export function engineSide(engine: string, { base, experts }: Case, batchFile: string): Side {
  const program = join(dirname(fileURLToPath(import.meta.url)), "worker.js");
  return {
    name: `train-merge, ${engine}`,
    command: process.execPath,
    args: [program, engine, base, batchFile, ...experts],
    env: { ...process.env, TF_CPP_MIN_LOG_LEVEL: "2" },
  };
}

const wayNames: Readonly<Record<string, string>> = {
  stacked: "stacked deltas",
  adamerging: "AdaMerging's own loop",
  bucketed: "bucketed by length",
  packed: "packed by length",
};

/** Such as "PyTorch, stacked deltas, compile, tf32" for stacked+compile+tf32. */
function peerName(way: string): string {
  const [own = "", ...extras] = way.split("+");
  return ["PyTorch", wayNames[own] ?? own, ...extras].join(", ");
}

export function peerSide(
  way: string,
  { base, experts }: Case,
  batchFile: string,
  how: { python: string; device: string },
): Side {
  const program = join(packageFolder, "scripts", "bench", "torch_step.py");
  return {
    name: peerName(way),
    peer: way,
    command: how.python,
    args: [program, base, batchFile, way, ...experts],
    // PyTorch's threads spin while they wait unless told not to, and stall whatever else runs.
    env: {
      ...pythonEnvironment(),
      DEVICE: how.device,
      OMP_WAIT_POLICY: "passive",
      GOMP_SPINCOUNT: "0",
    },
  };
}

export function startWorker({ name, command, args, env }: Side): Worker {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], env });
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  let complaint = "";
  child.stderr.on("data", (chunk: Buffer) => {
    complaint = (complaint + chunk.toString()).slice(-4000);
  });
  child.on("error", (error) => {
    complaint = error.message;
  });
  // A request to a process that has ended is answered by its end, below.
  child.stdin.on("error", () => {});
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async ask(schema, request) {
      if (request !== undefined) child.stdin.write(`${JSON.stringify(request)}\n`);
      const { value, done } = await lines.next();
      if (done) {
        await ended;
        throw new Error(`${name} is left out: ${reasonIn(complaint)}`);
      }
      return schema.parse(JSON.parse(value));
    },
    async stop() {
      child.kill();
      await ended;
    },
  };
}
