import { existsSync } from "node:fs";
import { join } from "node:path";
import { UserError } from "../errors.js";
import type { Example } from "./examples.js";
import type { FileSplit } from "./files.js";
import { readNpz } from "./npz.js";
import type { Task } from "./registry.js";

const arrayNames: Record<FileSplit, string> = { train: "train", validation: "val", test: "test" };

/**
 * The splits of an image task's archive, `<task>.npz` in the data folder: train_x, val_x, test_x, [n, height, width] or
 * [n, height, width, channels] of bytes, and train_y, val_y, test_y, the labels' numbers. A split is read when it is asked for.
 * @throws UserError where there is no archive, or an array does not fit the task
 */
export function imageSplits(dataFolder: string, task: Task): (split: FileSplit) => Promise<{ path: string; examples: Example[] } | undefined> {
  const path = [join(dataFolder, `${task.id}.npz`), join(dataFolder, task.id, `${task.id}.npz`)].find(existsSync);
  if (path === undefined) throw new UserError(`${dataFolder}: no data for task ${task.id}; it should be ${task.id}.npz there. Name the folder that holds it with --data`);
  return async (split) => {
    const [x, y] = [`${arrayNames[split]}_x`, `${arrayNames[split]}_y`];
    const arrays = await readNpz(path, [x, y]);
    const [images, labels] = [arrays.get(x), arrays.get(y)];
    if (!images || !labels) return undefined;
    const [count, height, width, channels = 1] = images.shape as [number, number, number, number?];
    const { values } = images;
    if (images.shape.length < 3 || images.shape.length > 4 || !(values instanceof Uint8Array)) throw new UserError(`${path}: ${x} must be bytes, [n, height, width] or [n, height, width, channels], it is [${images.shape.join(", ")}]`);
    if (labels.values.length !== count) throw new UserError(`${path}: ${x} has ${count} images, ${y} ${labels.values.length} labels`);
    const size = height * width * channels;
    const examples = Array.from(labels.values as ArrayLike<number | bigint>, (label, i): Example => {
      const number = Number(label);
      if (!(number >= 0 && number < task.labels!.length)) throw new UserError(`${path}: ${y} has the label ${number} at ${i}; ${task.id} takes 0 to ${task.labels!.length - 1}`);
      return { texts: [], label: number, picture: { height, width, channels, pixels: values.subarray(i * size, (i + 1) * size) } };
    });
    return { path, examples };
  };
}
