import { tidy } from "@tensorflow/tfjs-core";
import { forward, logits, type Head } from "../models/index.js";
import type { Model, Weights } from "../models/types.js";
import { bucketed, type EncodedExample } from "../tasks/batches.js";

/** A task made ready for a model: its head and encoded examples. */
export interface PreparedTask {
  readonly id: string;
  readonly isChoice: boolean;
  readonly synthetic: boolean;
  readonly head: Head;
  readonly validation: readonly EncodedExample[];
  readonly test: readonly EncodedExample[];
}

export interface Score {
  /** Fraction of examples whose highest logit is the label's. */
  readonly accuracy: number;
  /** Mean cross-entropy in nats. */
  readonly loss: number;
  readonly n: number;
}

/** −log softmax(row)[label], in float64 on the host. */
function negativeLogLikelihood(row: ArrayLike<number>, label: number): number {
  const values = Array.from(row);
  const top = Math.max(...values);
  return top + Math.log(values.reduce((sum, value) => sum + Math.exp(value - top), 0)) - values[label]!;
}

/** Evaluates examples in batches of like length. Device memory: the weights and one batch's activations. */
export async function evaluateExamples(model: Model, weights: Weights, task: PreparedTask, examples: readonly EncodedExample[], batchSize = 32): Promise<Score> {
  let correct = 0;
  let loss = 0;
  for (const batch of bucketed(examples, batchSize, task.isChoice)) {
    const scores = tidy(() => logits(forward(model, weights, batch.rows), task.head, batch.choices));
    const width = scores.shape[1];
    const values = await scores.data();
    scores.dispose();
    batch.labels.forEach((label, i) => {
      const row = values.subarray(i * width, (i + 1) * width);
      if (row.indexOf(Math.max(...row)) === label) correct++;
      loss += negativeLogLikelihood(row, label);
    });
  }
  return { accuracy: correct / examples.length, loss: loss / examples.length, n: examples.length };
}

/** Scores of several tasks under the same weights, in their order. */
export async function evaluateTasks(model: Model, weights: Weights, tasks: readonly PreparedTask[], split: "validation" | "test"): Promise<Score[]> {
  const scores: Score[] = [];
  for (const task of tasks) scores.push(await evaluateExamples(model, weights, task, task[split]));
  return scores;
}

export const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
