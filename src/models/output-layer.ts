import { matMul, tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { i32 } from "../at.js";
import { taughtBy, teacherDivergence } from "./distil.js";
import { joinedLesson, type Lesson } from "./lesson.js";
import { affine, concatenated, multiplied, op } from "./ops.js";
import { tokenLogProb, tokenLogProbOfPieces } from "./losses.js";
import type { TokenBatch, Weights } from "./types.js";
import { areFrozen, weightMatrix } from "./layers.js";

/** The tokens of a batch that predict a language model's targets, row after row. */
export interface Predictions {
  /** Which of the batch's tokens predicts a target. */
  readonly tokens: Int32Array;
  readonly targets: Int32Array;
  /** [rows, predictions]: what a prediction counts for in its row's score, 0 in every other. */
  readonly owners: Float32Array;
  readonly rows: number;
  /** What a teacher is asked of them, or has said. */
  readonly lesson: Lesson | undefined;
}

/** Which tokens of a batch predict its targets: row after row. */
export function predictionsOf({ rows: given, first }: TokenBatch): Predictions {
  const all = given.flatMap(({ scored = [] }, r) => {
    const start = i32(first, r);
    return scored.map((one) => ({ ...one, first: start + one.first, second: start + one.second }));
  });
  const total = all.reduce((sum, { targets }) => sum + targets.length, 0);
  const [tokens, targets] = [new Int32Array(total), new Int32Array(total)];
  const count = 1 + Math.max(...all.map(({ row }) => row));
  const owners = new Float32Array(count * total);
  let n = 0;
  for (const { row, first: before, second, targets: ids, mean } of all) {
    tokens.set(
      ids.map((_, t) => (t === 0 ? before : second + t - 1)),
      n,
    );
    targets.set(ids, n);
    owners.fill(mean ? 1 / ids.length : 1, row * total + n, row * total + n + ids.length);
    n += ids.length;
  }
  const lesson = joinedLesson(all.flatMap((one) => one.lesson ?? []));
  return { tokens, targets, owners, rows: count, lesson };
}

/** A number a prediction, [predictions, 1], summed up by row: a product with a matrix of zeros and ones. */
const summed = (x: Tensor2D, { owners, rows: count }: Predictions): Tensor2D =>
  op(
    [x],
    ([input]) => {
      const byRow = tensor2d(owners, [count, owners.length / count]);
      return { value: matMul<Tensor2D>(byRow, input), saved: [byRow] };
    },
    (dy, [byRow]) => [matMul(byRow, dy, true, false)],
  );

/** The output layer of a language model: [vocabulary, width], in pieces of its rows where it is large. */
export interface Unembedding {
  readonly pieces: readonly Tensor2D[];
  /** Nobody asks for its gradient. */
  readonly frozen: boolean;
}

export const unembeddingOf = (weights: Weights, name: string): Unembedding => ({
  pieces: weights.pieces?.(name) ?? [weightMatrix(weights, name)],
  frozen: areFrozen(weights, name),
});

/** Scores of every token of the vocabulary, [n, vocabulary], without a gradient for the output layer. */
export const tokenScores = (x: Tensor2D, { pieces }: Unembedding): Tensor2D =>
  concatenated(
    pieces.map((weight) => affine(x, [{ weight, frozen: true }])),
    1,
  );

/**
 * What targets are scored by: their log-probability, [rows, 1]; where a teacher has spoken, minus the divergence from
 * it, [rows, 1]; where a teacher is asked, what it says, a row a prediction (models/distil.ts).
 * @param x [predictions, width]: the activations of the tokens that predict, normalised
 */
export function scoredTargets(x: Tensor2D, out: Unembedding, predictions: Predictions): Tensor2D {
  const { lesson } = predictions;
  if (!lesson) return targetLogProb(x, out, predictions);
  if (!lesson.teacher) return taughtBy(x, out.pieces, lesson.asked);
  return multiplied(summed(teacherDivergence(x, out, lesson.teacher, lesson), predictions), -1);
}

/**
 * Σ log p(target) of every row: [rows, 1].
 * @param x [predictions, width]: the activations of the tokens that predict, normalised
 */
export function targetLogProb(
  x: Tensor2D,
  { pieces, frozen }: Unembedding,
  predictions: Predictions,
): Tensor2D {
  const { targets } = predictions;
  const [weight, ...others] = pieces;
  if (weight && others.length === 0)
    return summed(tokenLogProb(affine(x, [{ weight, frozen }]), targets), predictions);
  return summed(tokenLogProbOfPieces(x, pieces, targets, frozen), predictions);
}
