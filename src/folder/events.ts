import { join } from "node:path";
import { atomicFile } from "../checkpoint/files.js";
import { eventFile, type ScalarEvent } from "../report/tensorboard.js";
import { readLog } from "./report.js";

/** Writes a run's log as TensorBoard reads it: tensorboard/events.out.tfevents.…, beside its results. */
export async function writeEvents(folder: string, tasks: readonly string[]): Promise<void> {
  const log = await readLog(folder);
  const scalars = log.flatMap(({ step, loss, validation }): ScalarEvent[] => [
    ...(loss === undefined ? [] : [{ tag: "loss/training", step, value: loss }]),
    ...(validation
      ? [
          { tag: "loss/held out", step, value: validation.loss },
          ...tasks.map((task, i) => ({ tag: `accuracy/${task}`, step, value: validation.accuracy[i]! })),
        ]
      : []),
  ]);
  // One name, so that a run that is made again takes the place of the old one.
  await atomicFile(join(folder, "tensorboard", "events.out.tfevents.0000000000.train-merge"), (write) =>
    write(eventFile(scalars, Date.now() / 1000)),
  );
}
