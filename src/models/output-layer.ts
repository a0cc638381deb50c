import { matMul, tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { i32 } from "../at.js";
import { taughtBy, teacherScorer } from "./distil.js";
import { joinedLesson, type Predictions } from "./lesson.js";
import { affine, concatenated, multiplied, op, spansOf } from "./ops.js";
import { capped, throughCap } from "./softcap.js";
import { tokenLogProb } from "./losses.js";
import { overPieces, targetScorer, type PieceScorer } from "./pieces.js";
import type { TokenBatch, Weights } from "./types.js";
import { areFrozen, weightMatrix } from "./layers.js";

/** Which tokens of a batch predict its targets: row after row. @param cap what scores are capped at */
export function predictionsOf({ rows: given, first }: TokenBatch, cap?: number): Predictions {
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
  return { tokens, targets, owners, rows: count, cap, lesson };
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
export const tokenScores = (x: Tensor2D, { pieces }: Unembedding, cap?: number): Tensor2D =>
  withCap(
    concatenated(
      pieces.map((weight) => affine(x, [{ weight, frozen: true }])),
      1,
    ),
    cap,
  );

/** Scores through a cap, where there is one. */
function withCap(scores: Tensor2D, cap: number | undefined): Tensor2D {
  if (cap === undefined) return scores;
  return op(
    [scores],
    ([z]) => {
      const value = capped(z, cap);
      return { value, saved: [value] };
    },
    (dy, [value]) => [throughCap(dy, value, cap)],
  );
}

/** What predictions are scored by, a piece of the output layer at a time. @param sizes rows of each piece */
export function scorerOf(predictions: Predictions, sizes: readonly number[]): PieceScorer {
  const { lesson, cap } = predictions;
  const spans = spansOf(sizes);
  if (!lesson?.teacher) return targetScorer(predictions, spans);
  return teacherScorer(lesson.teacher, spans, { ...lesson, cap });
}

/** What rows are scored by, from a number a prediction: its log-probability, or what a teacher said otherwise. */
export const rowScores = (numbers: Tensor2D, predictions: Predictions): Tensor2D =>
  predictions.lesson ? multiplied(summed(numbers, predictions), -1) : summed(numbers, predictions);

/**
 * What targets are scored by: their log-probability, [rows, 1]; where a teacher has spoken, minus the divergence from
 * it, [rows, 1]; where a teacher is asked, what it says, a row a prediction (models/distil.ts).
 * @param x [predictions, width]: the activations of the tokens that predict, normalised
 */
export function scoredTargets(x: Tensor2D, out: Unembedding, predictions: Predictions): Tensor2D {
  const { targets, lesson, cap } = predictions;
  const { pieces, frozen } = out;
  if (lesson && !lesson.teacher) return taughtBy(x, pieces, { ...lesson.asked, cap });
  const [weight, ...others] = pieces;
  // Softmax is kept where it is one tensor, not made twice.
  if (!lesson && weight && others.length === 0)
    return rowScores(tokenLogProb(withCap(affine(x, [{ weight, frozen }]), cap), targets), predictions);
  const sizes = pieces.map(({ shape }) => shape[0]);
  return rowScores(overPieces(x, pieces, frozen, scorerOf(predictions, sizes)), predictions);
}
