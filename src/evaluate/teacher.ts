import { constantTables } from "../methods/constant.js";
import { bucketed, cutBatch, tokensAPass } from "../tasks/batches.js";
import { softmax } from "../tensor/softmax.js";
import { expertOf, type MergeContext } from "./baselines.js";
import { batchLogits, evaluationBatch, type PreparedTask } from "./evaluate.js";

/**
 * Asks each task's expert (its column at coefficient 1, the others at 0) what it says of the task's
 * examples, and puts the probabilities beside them: what `--loss distillation` learns from. A column
 * that is a merge itself (in a tree) speaks for its tasks. Labels are not looked at. Memory: as an
 * evaluation.
 */
export async function withTeacher(
  place: MergeContext,
  tasks: readonly PreparedTask[],
  split: "validation" | "test",
): Promise<PreparedTask[]> {
  const {
    layers: { length: n },
    experts: { length: k },
  } = place.vectors;
  const found: PreparedTask[] = [];
  for (const task of tasks) {
    const examples = task[split];
    const softLabels: number[][] = [];
    // An example's label is its place here, so that it is known in the batch that it lands in.
    const batches = bucketed(
      examples.map((example, label) => ({ ...example, label })),
      evaluationBatch,
    ).flatMap((batch) => cutBatch(batch, place.microBatch ?? tokensAPass));
    const merge = { ...place, table: constantTables.individual(n, k, expertOf(place, task)) };
    for await (const {
      item: { batch },
      values,
      width,
    } of batchLogits(
      merge,
      batches.map((batch) => ({ head: task.head, batch })),
    )) {
      for (const [i, at] of batch.labels.entries())
        softLabels[at] = softmax(values.subarray(i * width, (i + 1) * width));
    }
    found.push({
      ...task,
      [split]: examples.map((example, i) => ({ ...example, softLabels: softLabels[i] })),
    });
  }
  return found;
}
