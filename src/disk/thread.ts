/** A worker thread of a merge: gets jobs, shares their tensors with the other threads through one counter. */
import { parentPort } from "node:worker_threads";
import { UserError } from "../errors.js";
import { workOn, type Job } from "./work.js";

/** What a thread is sent: its job, the order in which tensors are taken, and the counter all threads take from. */
export interface Sent {
  readonly job: Job;
  readonly order: Int32Array;
  readonly counter: Int32Array;
}
/** What it answers: a tensor is done; all are, with its state; or it failed. */
export type Answer =
  | { readonly done: number }
  | { readonly state: unknown }
  | {
      readonly failed: {
        readonly message: string;
        readonly user: boolean;
        readonly stack?: string | undefined;
        readonly code?: string | undefined;
        readonly path?: string | undefined;
      };
    };

export const taker =
  ({ order, counter }: Pick<Sent, "order" | "counter">) =>
  (): number | undefined =>
    order[Atomics.add(counter, 0, 1)];

parentPort?.on("message", (sent: Sent) => {
  const answer = (message: Answer) => parentPort!.postMessage(message);
  try {
    answer({ state: workOn(sent.job, taker(sent), (done) => answer({ done })) });
  } catch (thrown) {
    const error = thrown as NodeJS.ErrnoException;
    answer({
      failed: {
        message: error.message,
        user: error instanceof UserError || error instanceof RangeError,
        stack: error.stack,
        code: error.code,
        path: error.path,
      },
    });
  }
});
