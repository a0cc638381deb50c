import { matMul, tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { joined, linear, op } from "./ops.js";
import { tokenLogProb, tokenLogProbOfPieces } from "./losses.js";
import type { TokenBatch, Weights } from "./types.js";

/** Where a language model's predictions of targets stand among a batch's tokens, row after row. */
export interface Places {
  readonly at: Int32Array;
  readonly targets: Int32Array;
  /** [rows, predictions]: what a prediction counts for in its row's score, 0 in every other. */
  readonly owners: Float32Array;
  readonly rows: number;
}

/** Where a batch's targets are predicted: row after row. */
export function placesOf({ rows: given, first }: TokenBatch): Places {
  const all = given.flatMap(({ scored = [] }, r) => scored.map((one) => ({ ...one, start: first[r]! })));
  const total = all.reduce((sum, { targets }) => sum + targets.length, 0);
  const [at, targets, owners] = [
    new Int32Array(total),
    new Int32Array(total),
    new Float32Array(all.length * total),
  ];
  let n = 0;
  for (const { row, start, first: before, second, targets: mine, mean } of all) {
    for (const [t, target] of mine.entries()) {
      at[n] = start + (t === 0 ? before : second + t - 1);
      targets[n] = target;
      owners[row * total + n] = mean ? 1 / mine.length : 1;
      n++;
    }
  }
  return { at, targets, owners, rows: all.length };
}

/** Rows of [rows, m] summed up by owner: a product with a matrix of zeros and ones. */
function summed(x: Tensor2D, { owners, rows: count }: Places): Tensor2D {
  return op<Tensor2D>([x], ([input], save) => {
    const matrix = tensor2d(owners, [count, owners.length / count]);
    save([matrix]);
    return { value: matMul(matrix, input as Tensor2D), backward: (dy, [m]) => [matMul(m!, dy, true, false)] };
  });
}

/** The output layer of a language model: [vocabulary, width], in pieces of its rows where it is large. */
export interface Unembedding {
  readonly pieces: readonly Tensor2D[];
  /** Nobody asks for its gradient. */
  readonly frozen: boolean | undefined;
}

export const unembeddingOf = (weights: Weights, name: string): Unembedding => ({
  pieces: weights.pieces?.(name) ?? [weights(name) as Tensor2D],
  frozen: weights.frozen?.(name),
});

/** Scores of every token of the vocabulary, [n, vocabulary], without a gradient for the output layer. */
export const tokenScores = (x: Tensor2D, { pieces }: Unembedding): Tensor2D =>
  joined(
    pieces.map((weight) => linear(x, [{ weight, frozen: true }])),
    1,
  );

/**
 * Σ log p(target) of every row: [rows, 1].
 * @param said [predictions, width]: the activations at the places, normalised
 */
export function score(said: Tensor2D, { pieces, frozen }: Unembedding, places: Places): Tensor2D {
  const [only] = pieces;
  const logProbs =
    pieces.length === 1
      ? tokenLogProb(linear(said, [{ weight: only!, frozen }]), places.targets)
      : tokenLogProbOfPieces(said, pieces, places.targets, frozen ?? false);
  return summed(logProbs, places);
}
