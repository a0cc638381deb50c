import { at, lookUp } from "../at.js";
import { constantTables } from "../merge/table.js";
import { bucketed, cutBatch, tokensAPass, type EncodedExample } from "../tasks/batches.js";
import { decided, isNumber } from "../tasks/decisions.js";
import { softmax } from "../tensor/dtype.js";
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
  const found: PreparedTask[] = [];
  for (const task of tasks) {
    const softLabels = await softLabelsOf(place, task, task[split]);
    const examples = task[split].map((example, i) => ({ ...example, softLabels: at(softLabels, i) }));
    found.push({ ...task, [split]: examples });
  }
  return found;
}

/** What a task's expert says of examples, in their order. */
async function softLabelsOf(
  place: MergeContext,
  task: PreparedTask,
  examples: readonly EncodedExample[],
): Promise<number[][]> {
  const { layers, experts } = place.vectors;
  const table = constantTables.individual(layers.length, experts.length, expertOf(place, task));
  const batches = bucketed(examples, evaluationBatch)
    .flatMap((batch) => cutBatch(batch, place.microBatch ?? tokensAPass))
    .map((batch) => ({ head: task.head, batch }));
  const found = new Map<EncodedExample, number[]>();
  for await (const { item, values, width } of batchLogits({ ...place, table }, batches))
    for (const { example, decisions } of decided(item.batch, values, width)) {
      // A number, and a vector, is told as it is.
      const isTold = isNumber(example.kind) || example.kind === "match";
      const told = decisions.map((one) => (isTold ? [...one] : softmax(one)));
      found.set(example, told.flat());
    }
  return examples.map((example) => lookUp(found, example));
}
