import { tensor2d, tidy } from "@tensorflow/tfjs-core";
import { sweepBytes } from "../merge/residency.js";
import type { Table } from "../merge/table.js";
import type { TaskVectors } from "../merge/vectors.js";
import { logits, type Head } from "../models/head.js";
import type { Model } from "../models/types.js";
import { stageForward, stagesOf, type StageInput } from "../stages/stages.js";
import { openStage } from "../stages/weights.js";
import { bucketed, cutBatch, tokensAPass, tokensOf, type Batch, type EncodedExample } from "../tasks/batches.js";

/** A task made ready for a model: its head and encoded examples. */
export interface PreparedTask {
  readonly id: string;
  readonly isChoice: boolean;
  readonly synthetic: boolean;
  /** None where the model scores its rows itself. */
  readonly head: Head | undefined;
  readonly validation: readonly EncodedExample[];
  readonly test: readonly EncodedExample[];
  /** The test examples in every prompt template, where there are several: `test` is the first of them. */
  readonly tests?: readonly (readonly EncodedExample[])[] | undefined;
}

export interface Score {
  /** Fraction of examples whose highest logit is the label's. */
  readonly accuracy: number;
  /** Mean cross-entropy in nats. */
  readonly loss: number;
  readonly n: number;
}

/** A merge as it is measured: a family, a coefficient table, and whether it runs a block at a time. */
export interface Merge {
  readonly model: Model;
  readonly vectors: TaskVectors;
  readonly table: Table;
  readonly blockwise?: boolean | undefined;
  /** Tokens that share one pass through the model. */
  readonly microBatch?: number | undefined;
}

/** −log softmax(row)[label], in float64 on the host. */
function negativeLogLikelihood(row: ArrayLike<number>, label: number): number {
  const values = Array.from(row);
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0)) - values[label]!;
}

/** Examples that run through the model together, and the head that scores them. */
export interface HeadBatch {
  readonly head: Head | undefined;
  readonly batch: Batch;
}

const evaluationBatch = 32;

/** Cuts batches into sweeps whose activations at a boundary fit {@link sweepBytes}. */
function sweepsOf<T extends HeadBatch>(items: readonly T[], width: number): T[][] {
  const sweeps: T[][] = [];
  let room = -1;
  for (const item of items) {
    const bytes = 4 * width * tokensOf(item.batch);
    if (bytes > room) {
      sweeps.push([]);
      room = sweepBytes;
    }
    sweeps.at(-1)!.push(item);
    room -= bytes;
  }
  return sweeps;
}

/**
 * Logits of batches under a merge, in their order: [examples, classes or choices] each. Device memory: the merged
 * weights (of the largest block, where it runs blockwise) and one batch's activations.
 */
export async function* batchLogits<T extends HeadBatch>({ model, vectors, table, blockwise = false }: Merge, items: readonly T[]): AsyncGenerator<{ item: T; values: Float32Array; width: number }> {
  const stages = stagesOf(model, blockwise);
  for (const sweep of blockwise ? sweepsOf(items, model.width) : [items]) {
    const inputs = sweep.map(({ batch }): StageInput => ({ batch: model.prepare(batch.rows), boundary: [] }));
    for (const stage of stages) {
      const { weights, dispose } = await openStage(model, vectors, table, stage, inputs.map(({ batch }) => batch));
      try {
        // One by one in place: what has been run lets go of its input.
        for (const [i, input] of inputs.entries()) inputs[i] = { ...input, boundary: await stageForward(model, stage, weights, input) };
      } finally {
        dispose();
      }
    }
    for (const [i, { boundary: [only] }] of inputs.entries()) {
      const item = sweep[i]!;
      const scores = tidy(() => logits(tensor2d(only!.values, only!.shape as [number, number]), item.head, item.batch.choices));
      try {
        yield { item, width: scores.shape[1], values: (await scores.data()) as Float32Array };
      } finally {
        scores.dispose();
      }
    }
  }
}

const medianOf = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
};

/**
 * Scores of several tasks under one merge, in their order. A task with several prompt templates is tested in each: its score
 * is the median over them (of accuracy, and of the loss).
 */
export async function evaluateTasks(merge: Merge, tasks: readonly PreparedTask[], split: "validation" | "test"): Promise<Score[]> {
  const variants = tasks.map((task) => (split === "test" && task.tests ? task.tests : [task[split]]));
  const flat = tasks.flatMap((task, i) => variants[i]!.map((examples) => ({ ...task, [split]: examples })));
  const scores = await evaluateEach(merge, flat, split);
  let at = 0;
  return variants.map(({ length }) => {
    const mine = scores.slice(at, (at += length));
    return { accuracy: medianOf(mine.map(({ accuracy }) => accuracy)), loss: medianOf(mine.map(({ loss }) => loss)), n: mine[0]!.n };
  });
}

async function evaluateEach(merge: Merge, tasks: readonly PreparedTask[], split: "validation" | "test"): Promise<Score[]> {
  const sums = tasks.map(() => ({ correct: 0, loss: 0 }));
  const items = tasks.flatMap(({ head, isChoice, [split]: examples }, task) => bucketed(examples, evaluationBatch, isChoice).flatMap((batch) => cutBatch(batch, merge.microBatch ?? tokensAPass)).map((batch) => ({ task, head, batch })));
  for await (const { item: { task, batch }, values, width } of batchLogits(merge, items)) {
    const sum = sums[task]!;
    batch.labels.forEach((label, i) => {
      const row = values.subarray(i * width, (i + 1) * width);
      if (row.indexOf(Math.max(...row)) === label) sum.correct++;
      sum.loss += negativeLogLikelihood(row, label);
    });
  }
  return tasks.map(({ [split]: { length: n } }, i) => ({ accuracy: sums[i]!.correct / n, loss: sums[i]!.loss / n, n }));
}

export const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
