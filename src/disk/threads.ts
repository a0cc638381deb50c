import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";

/** Threads that were started before there was work for them. */
const waiting: Worker[] = [];

// From TypeScript sources (in tests) there is no file that a thread could run.
const runnable = !import.meta.url.endsWith(".ts");

const start = (): Worker => new Worker(new URL("./thread.js", import.meta.url));

/** 0 threads: this one does the work. */
const helpers = (threads: number): number => (runnable ? Math.max(0, threads) : 0);

/**
 * Starts threads that a merge will want, so that they are there when the files are open. They keep no
 * process alive.
 */
export function startMergeThreads(threads: number = availableParallelism()): void {
  while (waiting.length < helpers(threads)) {
    const worker = start();
    worker.unref();
    waiting.push(worker);
  }
}

/** The threads of a merge: those that wait, and as many more as are wanted. */
export function takeThreads(threads: number = availableParallelism()): Worker[] {
  return Array.from({ length: helpers(threads) }, () => {
    const worker = waiting.shift() ?? start();
    worker.ref();
    return worker;
  });
}
