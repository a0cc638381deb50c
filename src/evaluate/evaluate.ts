import { tensor2d, tidy } from "@tensorflow/tfjs-core";
import { at, f32 } from "../at.js";
import { sweepBytes } from "../merge/residency.js";
import { logits, type Head } from "../models/layers.js";
import { stageForward, stagesOf, openStage, type StageInput } from "../stages/stages.js";
import {
  batchTokens,
  bucketed,
  choicesOf,
  cutBatch,
  groupUpTo,
  lossWeight,
  tokensAPass,
  type Batch,
  type EncodedExample,
} from "../tasks/batches.js";
import type { Answering, TextOutput } from "../tasks/encoders.js";
import { median } from "../report/rows.js";
import { isExact } from "./exact.js";
import { generate } from "./generate.js";
import type { Merge } from "./merge.js";

/** A task made ready for a model: how it is answered, its head and encoded examples. */
export type PreparedTask = Answering & TaskExamples;

interface TaskExamples {
  readonly id: string;
  readonly synthetic: boolean;
  /** None where the model scores its rows itself. */
  readonly head: Head | undefined;
  readonly validation: readonly EncodedExample[];
  readonly test: readonly EncodedExample[];
  /** The test examples in every prompt template, where there are several: `test` is the first of them. */
  readonly tests?: readonly (readonly EncodedExample[])[] | undefined;
}

export interface TaskScore {
  /**
   * Fraction of examples whose highest logit is the label's; of texts to be said, of those said word
   * for word ({@link isExact}).
   */
  readonly accuracy: number;
  /** Mean cross-entropy in nats: an example's, or of texts to be said, a token's. */
  readonly loss: number;
  readonly n: number;
}

/** −log softmax(row)[label], in float64 on the host. */
function negativeLogLikelihood(row: Float32Array, label: number): number {
  const values = Array.from(row);
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0)) - f32(row, label);
}

/** Examples that run through the model together, and the head that scores them. */
export interface HeadBatch {
  readonly head: Head | undefined;
  readonly batch: Batch;
}

/** What was right of a batch, and what was lost, summed; the mean is over `over`. */
export interface Tally {
  correct: number;
  loss: number;
  over: number;
}

/**
 * Adds a batch's scores, [examples, width] in rows, to a tally. Texts to be said are lost token by
 * token, and none is right here: that is heard.
 */
export function tally(sum: Tally, batch: Batch, values: Float32Array, width: number): void {
  sum.over += lossWeight(batch);
  if (batch.kind === "generate") {
    sum.loss -= values.reduce((total, value) => total + value, 0);
    return;
  }
  for (const [i, label] of batch.labels.entries()) {
    const row = values.subarray(i * width, (i + 1) * width);
    if (row.indexOf(Math.max(...row)) === label) sum.correct++;
    sum.loss += negativeLogLikelihood(row, label);
  }
}

export const evaluationBatch = 32;

/**
 * Logits of batches under a merge, in their order: [examples, classes or choices] each. Device memory: the merged
 * weights (of the largest block, where it runs blockwise) and one batch's activations.
 */
export async function* batchLogits<T extends HeadBatch>(
  { model, vectors, table, blockwise = false }: Merge,
  items: readonly T[],
): AsyncGenerator<{ item: T; values: Float32Array; width: number }> {
  const stages = stagesOf(model, blockwise);
  // Activations at a boundary of blocks wait in host memory.
  const most = blockwise ? sweepBytes : Infinity;
  for (const sweep of groupUpTo(items, most, ({ batch }) => 4 * model.width * batchTokens(batch))) {
    const inputs = sweep.map(({ batch }): StageInput => ({ batch: model.prepare(batch.rows), boundary: [] }));
    for (const stage of stages) {
      const { weights, dispose } = await openStage(
        { model, vectors, table },
        stage,
        inputs.map(({ batch }) => batch),
      );
      try {
        // One by one in place: what has been run lets go of its input.
        for (const [i, input] of inputs.entries())
          inputs[i] = { ...input, boundary: await stageForward(model, stage, weights, input) };
      } finally {
        dispose();
      }
    }
    for (const [i, item] of sweep.entries()) {
      const { values, shape } = at(at(inputs, i).boundary, 0);
      const scores = tidy(() =>
        logits(tensor2d(values, [at(shape, 0), at(shape, 1)]), item.head, choicesOf(item.batch)),
      );
      try {
        yield { item, width: scores.shape[1], values: await scores.data<"float32">() };
      } finally {
        scores.dispose();
      }
    }
  }
}

/**
 * Scores of several tasks under one merge, in their order. A task with several prompt templates is
 * tested in each: its score is the median over them (of accuracy, and of the loss).
 */
export async function evaluateTasks(
  merge: Merge,
  tasks: readonly PreparedTask[],
  split: "validation" | "test",
): Promise<TaskScore[]> {
  const variants = tasks.map((task) =>
    templatesOf(task, split).map((examples): PreparedTask => ({ ...task, [split]: examples })),
  );
  const scores = await evaluateEach(merge, variants.flat(), split);
  let from = 0;
  return variants.map(({ length }) => {
    const mine = scores.slice(from, (from += length));
    return {
      accuracy: median(mine.map(({ accuracy }) => accuracy)),
      loss: median(mine.map(({ loss }) => loss)),
      n: at(mine, 0).n,
    };
  });
}

/** A split's examples in every prompt template that they are scored in. */
function templatesOf(
  task: PreparedTask,
  split: "validation" | "test",
): readonly (readonly EncodedExample[])[] {
  if (split === "test" && task.tests) return task.tests;
  return [task[split]];
}

async function evaluateEach(
  merge: Merge,
  tasks: readonly PreparedTask[],
  split: "validation" | "test",
): Promise<TaskScore[]> {
  const parts = tasks.map((task) => ({ task, sum: { correct: 0, loss: 0, over: 0 } satisfies Tally }));
  const items = parts.flatMap(({ task, sum }) =>
    bucketed(task[split], evaluationBatch)
      .flatMap((batch) => cutBatch(batch, merge.microBatch ?? tokensAPass))
      .map((batch) => ({ sum, head: task.head, batch })),
  );
  for await (const { item, values, width } of batchLogits(merge, items)) {
    tally(item.sum, item.batch, values, width);
  }
  for (const { task, sum } of parts)
    if (task.kind === "generate") sum.correct = await countExact(merge, task[split], task.generation);
  return parts.map(({ task: { [split]: examples }, sum: { correct, loss, over } }) => ({
    accuracy: correct / examples.length,
    loss: loss / over,
    n: examples.length,
  }));
}

/** How many texts a merge says word for word ({@link isExact}). */
async function countExact(
  merge: Merge,
  examples: readonly EncodedExample[],
  { most, text }: TextOutput,
): Promise<number> {
  const said = await generate(
    merge,
    examples.map(({ rows }) => at(rows, 0)),
    most,
  );
  return examples.filter(
    (example, i) => example.kind === "generate" && isExact(text(at(said, i)), example.answers),
  ).length;
}
