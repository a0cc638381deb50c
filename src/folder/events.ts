import { join } from "node:path";
import { atomicFile } from "../checkpoint/files.js";
import { eventFile, type ScalarEvent } from "../report/tensorboard.js";
import { at } from "../at.js";
import { fileNames, readLog, type LogLine } from "./files.js";

/** What TensorBoard shows of a step: the losses, and each task's accuracy on the held-out examples. */
function scalarsOf({ step, loss, validation }: LogLine, tasks: readonly string[]): ScalarEvent[] {
  const scalars: ScalarEvent[] = [];
  if (loss !== undefined) scalars.push({ tag: "loss/training", step, value: loss });
  if (!validation) return scalars;
  scalars.push({ tag: "loss/held out", step, value: validation.loss });
  for (const [i, task] of tasks.entries())
    scalars.push({ tag: `accuracy/${task}`, step, value: at(validation.accuracy, i) });
  return scalars;
}

/** Writes a run's log as TensorBoard reads it: tensorboard/events.out.tfevents.…, beside its results. */
export async function writeEvents(folder: string, tasks: readonly string[]): Promise<void> {
  const log = await readLog(folder);
  const scalars = log.flatMap((line) => scalarsOf(line, tasks));
  // One name, so that a run that is made again takes the place of the old one.
  await atomicFile(
    join(folder, fileNames.tensorboard, "events.out.tfevents.0000000000.train-merge"),
    (write) => write(eventFile(scalars, Date.now() / 1000)),
  );
}
