import { matMul, tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { linear, op } from "./ops.js";
import { tokenLogProb } from "./losses.js";
import type { TokenBatch } from "./types.js";

/** Where a language model's predictions of targets stand among a batch's tokens, row after row. */
export interface Places {
  readonly at: Int32Array;
  readonly targets: Int32Array;
  /** [rows, predictions]: what a prediction counts for in its row's score, 0 in every other. */
  readonly owners: Float32Array;
  readonly rows: number;
}

/** Where targets are said: a batch's rows, each with what is spoken in it. */
export function placesOf({ rows: given, first }: TokenBatch): Places {
  const all = given.flatMap(({ spoken = [] }, r) => spoken.map((one) => ({ ...one, start: first[r]! })));
  const total = all.reduce((sum, { targets }) => sum + targets.length, 0);
  const [at, targets, owners] = [new Int32Array(total), new Int32Array(total), new Float32Array(all.length * total)];
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

/**
 * Σ log p(target) of every row: [rows, 1].
 * @param said [predictions, width]: the activations at the places, normalised
 * @param unembedding [vocabulary, width]
 */
export const score = (said: Tensor2D, unembedding: Tensor2D, places: Places, frozen: boolean | undefined): Tensor2D =>
  summed(tokenLogProb(linear(said, [{ weight: unembedding, frozen }]), places.targets), places);
