import { matMul, tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { linear, op } from "./ops.js";
import { tokenLogProb } from "./losses.js";
import type { TokenBatch, TokenRow } from "./types.js";

/** Where a language model's predictions of targets stand among a batch's tokens, row after row. */
export interface Places {
  readonly at: Int32Array;
  readonly targets: Int32Array;
  /** [rows, predictions]: what a prediction counts for in its row's score, 0 in every other. */
  readonly owners: Float32Array;
  readonly rows: number;
}

/**
 * A row's targets are said one after the other from place `from` on: by its last token before them, and then by each of
 * them but the last.
 * @param from the place of the token in its row that says the first target
 */
export function placesOf({ rows: given, first }: TokenBatch, from: (row: TokenRow) => number): Places {
  const counts = given.map(({ targets = [] }) => targets.length);
  const total = counts.reduce((a, b) => a + b, 0);
  const [at, targets, owners] = [new Int32Array(total), new Int32Array(total), new Float32Array(given.length * total)];
  let n = 0;
  for (const [r, row] of given.entries()) {
    for (const [t, target] of (row.targets ?? []).entries()) {
      at[n] = first[r]! + from(row) + t;
      targets[n] = target;
      owners[r * total + n] = row.mean ? 1 / row.targets!.length : 1;
      n++;
    }
  }
  return { at, targets, owners, rows: given.length };
}

/** Rows of [rows, m] summed up by owner: a product with a matrix of zeros and ones. */
function summed(x: Tensor2D, { owners, rows: count }: Places): Tensor2D {
  return op<Tensor2D>([x], ([input], save) => {
    const matrix = tensor2d(owners, [count, owners.length / count]);
    save([matrix]);
    return { value: matMul(matrix, input as Tensor2D), backward: (dy, [m]) => [matMul(m!, dy, true, false)] };
  });
}

/**
 * Σ log p(target) of every row: [rows, 1].
 * @param said [predictions, width]: the activations at the places, normalised
 * @param unembedding [vocabulary, width]
 */
export const score = (said: Tensor2D, unembedding: Tensor2D, places: Places, frozen: boolean | undefined): Tensor2D =>
  summed(tokenLogProb(linear(said, [{ weight: unembedding, frozen }]), places.targets), places);
