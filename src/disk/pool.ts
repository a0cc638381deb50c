import type { Worker } from "node:worker_threads";
import { Stopped, UserError } from "../errors.js";
import { elements } from "../tensor/dtype.js";
import { taker, type Answer, type Failure, type Sent } from "./thread.js";
import { takeThreads } from "./threads.js";
import { workOn, type DiskJob } from "./work.js";

/** Threads that merge. What they make does not depend on how many they are. */
export interface Pool {
  /** Runs a job over all its tensors. @returns every thread's state */
  run(
    job: DiskJob,
    onTensor: (done: number, of: number) => void,
    stopping?: () => boolean,
  ): Promise<unknown[]>;
  close(): Promise<void>;
}

/** The largest first: a thread that begins a large one last keeps the others waiting. */
function largestFirst({ tensors }: DiskJob): Int32Array {
  const sizes = [...tensors.map(({ shape }) => elements(shape)).entries()];
  const shared = new Int32Array(new SharedArrayBuffer(4 * tensors.length));
  shared.set(sizes.sort(([i, a], [j, b]) => b - a || i - j).map(([place]) => place));
  return shared;
}

function errorOf({ message, user, stack, code, path }: Failure): Error {
  const error: NodeJS.ErrnoException = user ? new UserError(message) : new Error(message);
  if (stack !== undefined) error.stack = stack;
  return Object.assign(error, code !== undefined && { code, path });
}

/** What a thread tells while it works, and when it cannot go on. */
interface Progress {
  done(): void;
  /** The other threads need not go on. */
  halt(): void;
}

/** Has a thread work on a job. @returns its state */
const workIn = (worker: Worker, sent: Sent, { done, halt }: Progress): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const settle = (settled: () => void) => {
      worker.off("message", hear).off("error", fail);
      settled();
    };
    const fail = (error: Error) => {
      halt();
      settle(() => reject(error));
    };
    const hear = (answer: Answer) => {
      if ("done" in answer) done();
      else if ("failed" in answer) fail(errorOf(answer.failed));
      else settle(() => resolve(answer.state));
    };
    worker.on("message", hear).on("error", fail);
    worker.postMessage(sent);
  });

/** As many threads as the machine has cores, or as asked for; 0 works in this one. */
export function openPool(threads?: number): Pool {
  const workers = takeThreads(threads);
  return {
    async run(job, onTensor, stopping = () => false) {
      const sent: Sent = { job, order: largestFirst(job), counter: new Int32Array(new SharedArrayBuffer(4)) };
      const of = job.tensors.length;
      let finished = 0;
      let stopped = false;
      const halt = () => void Atomics.store(sent.counter, 0, of);
      const done = () => {
        onTensor(++finished, of);
        if (finished < of && stopping()) {
          stopped = true;
          halt();
        }
      };
      let states: unknown[];
      if (workers.length === 0) states = [workOn(job, taker(sent), done)];
      else states = await Promise.all(workers.map((worker) => workIn(worker, sent, { done, halt })));
      if (stopped) throw new Stopped("stopped");
      return states;
    },
    close: async () => void (await Promise.all(workers.map((worker) => worker.terminate()))),
  };
}
