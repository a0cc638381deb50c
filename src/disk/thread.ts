/** A worker thread of a merge: gets jobs, shares their tensors with the other threads through one counter. */
import { parentPort, type MessagePort } from "node:worker_threads";
import { UserError } from "../errors.js";
import { workOn, type DiskJob } from "./work.js";

/** What a thread is sent: its job, the order in which tensors are taken, and the counter all threads take from. */
export interface Sent {
  readonly job: DiskJob;
  readonly order: Int32Array;
  readonly counter: Int32Array;
}
/** What it answers: a tensor is done; all are, with its state; or it failed. */
export type Answer = { readonly done: number } | { readonly state: unknown } | { readonly failed: Failure };

/** An error of a thread. */
export interface Failure {
  readonly message: string;
  /** It is about what the user gave. */
  readonly user: boolean;
  readonly stack?: string | undefined;
  readonly code?: string | undefined;
  readonly path?: string | undefined;
}

export const taker =
  ({ order, counter }: Pick<Sent, "order" | "counter">) =>
  (): number | undefined =>
    order[Atomics.add(counter, 0, 1)];

/** An error as plain data. Those of the file system have a code and a path. */
function failureOf(thrown: unknown): Failure {
  const error: Error & { code?: unknown; path?: unknown } =
    thrown instanceof Error ? thrown : new Error(String(thrown));
  return {
    message: error.message,
    user: error instanceof UserError || error instanceof RangeError,
    stack: error.stack,
    ...(typeof error.code === "string" && { code: error.code }),
    ...(typeof error.path === "string" && { path: error.path }),
  };
}

function serve(port: MessagePort): void {
  const answer = (message: Answer) => port.postMessage(message);
  port.on("message", (sent: Sent) => {
    try {
      answer({ state: workOn(sent.job, taker(sent), (done) => answer({ done })) });
    } catch (thrown) {
      answer({ failed: failureOf(thrown) });
    }
  });
}

if (parentPort) serve(parentPort);
