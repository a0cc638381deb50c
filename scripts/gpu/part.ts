/** What a part of the proof is, and how it runs processes. */
import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Driver } from "./driver.js";
import { referenceFile, type Reference } from "./reference.js";

export interface Table {
  readonly title: string;
  readonly head: readonly string[];
  readonly body: readonly (readonly string[])[];
}

export interface Found {
  /** Whether what was asked for was reached, where something was. */
  readonly ok: boolean;
  readonly summary: string;
  readonly tables?: readonly Table[];
  readonly data?: unknown;
}

export interface Context {
  readonly driver: Driver;
  /** The card only emulates one: sizes are small then. */
  readonly emulated: boolean;
  /** Where families and outputs go. */
  readonly work: string;
  /** Where logs go. */
  readonly out: string;
  readonly python: string;
  /** PyTorch with CUDA is there. */
  readonly torch: boolean;
  /** When the part must be over: performance.now(). */
  readonly deadline: number;
}

export const here = dirname(fileURLToPath(import.meta.url));
export const benchScripts = join(here, "..", "bench");

export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly timedOut: boolean;
}

/** Ends a process and all that it started. */
function endGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  } catch {
    // It had ended by itself.
  }
}

/** What runs now: it does not outlive this process. */
let running: number | undefined;
process.on("exit", () => endGroup(running));
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));

/** Runs a command until it ends or the part's time is over; what it prints goes to LOG too. */
export function run(
  { out, driver, deadline, python }: Context,
  log: string,
  command: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      env: {
        ...process.env,
        // A card's Vulkan driver wants folders searched that hold other versions of what Python brings.
        ...(command === python ? {} : driver.env),
        TRAIN_MERGE_PYTHON_LIBRARIES: process.env["LD_LIBRARY_PATH"] ?? "",
        ...env,
      },
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    running = child.pid;
    let stdout = "";
    let all = "";
    let timedOut = false;
    child.stdout.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
      all += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => (all += chunk.toString()));
    const timer = setTimeout(
      () => {
        timedOut = true;
        endGroup(child.pid);
      },
      Math.max(0, deadline - performance.now()),
    );
    const end = (code: number) => {
      clearTimeout(timer);
      running = undefined;
      writeFileSync(join(out, `${log}.log`), all);
      resolve({ code, stdout, timedOut });
    };
    child.on("error", (error) => {
      all += error.message;
      end(127);
    });
    child.on("close", (code) => end(code ?? 1));
  });
}

export const node = (
  context: Context,
  log: string,
  script: string,
  args: readonly string[],
  env?: Record<string, string>,
): Promise<Ended> => run(context, log, process.execPath, [script, ...args], env);

export function lastJson<T>({ stdout }: Ended): T | undefined {
  const line = stdout
    .trim()
    .split("\n")
    .findLast((text) => text.startsWith("{"));
  return line === undefined ? undefined : (JSON.parse(line) as T);
}

export const why = ({ code, timedOut }: Ended, log: string): string =>
  timedOut ? `its time was over (${log}.log)` : `it ended with code ${code} (${log}.log)`;

export function maxError(actual: readonly number[], expected: readonly number[]): number {
  if (actual.length !== expected.length) return Infinity;
  return Math.max(...actual.map((value, i) => Math.abs(value - expected[i]!)));
}

export const reference = (): Reference =>
  existsSync(referenceFile)
    ? (JSON.parse(readFileSync(referenceFile, "utf8")) as Reference)
    : { limits: {}, sizes: {}, merges: {} };

export interface Part {
  readonly name: string;
  readonly what: string;
  /** Seconds that it may take. */
  readonly limit: number;
  run(context: Context): Promise<Found>;
}
