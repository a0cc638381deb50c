import {
  add,
  dispose,
  engine,
  mul,
  square,
  tidy,
  zerosLike,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { forward } from "../models/index.js";
import { logits, type Head } from "../models/layers.js";
import { labelCrossEntropy } from "../models/losses.js";
import type { Model } from "../models/types.js";
import { choicesOf, toBatch, type EncodedExample } from "../tasks/batches.js";
import { softmax } from "../tensor/dtype.js";
import { weightsByName, type ModelWeights } from "./weights.js";

/** A task's inputs, and the head that they are put to. */
export interface TaskInputs {
  readonly head: Head | undefined;
  readonly validation: readonly EncodedExample[];
}

/**
 * Diagonal Fisher information of a model on a task's inputs (Matena & Raffel 2022): the mean over examples of
 * Σ_y p(y|x) (∂ log p(y|x) / ∂θ)², exact over the classes (or choices); labels are not looked at. Device memory: the
 * weights, two arrays of their size, and one example's activations.
 * @returns one array a weight, of its size
 */
export async function fisherOf(
  model: Model,
  modelWeights: ModelWeights,
  { head, validation: examples }: TaskInputs,
  onExample: (done: number, of: number) => void,
): Promise<Map<string, Float32Array>> {
  const { tensors, names } = modelWeights;
  const weights = weightsByName(modelWeights);
  let sums: Tensor[] = tensors.map((tensor) => zerosLike(tensor));
  try {
    for (const [n, example] of examples.entries()) {
      const batch = toBatch([example]);
      const scores = (): Tensor2D => logits(forward(model, weights, batch.rows), head, choicesOf(batch));
      const z = tidy(scores);
      const probabilities = softmax(await z.data());
      z.dispose();
      for (const [label, probability] of probabilities.entries()) {
        const before = sums;
        sums = tidy(() => {
          const { grads } = engine().gradients(() => labelCrossEntropy(scores(), [label]), [...tensors]);
          return addSquares(before, grads, probability / examples.length);
        });
        dispose(before);
      }
      onExample(n + 1, examples.length);
    }
    const out = new Map<string, Float32Array>();
    for (const [i, name] of names.entries()) out.set(name, await at(sums, i).data<"float32">());
    return out;
  } finally {
    dispose(sums);
  }
}

/** Sums of squared gradients, weighted; what a forward does not reach has no gradient. */
const addSquares = (
  sums: readonly Tensor[],
  gradients: readonly (Tensor | undefined)[],
  weight: number,
): Tensor[] =>
  sums.map((sum, i) => {
    const g = gradients[i];
    return g ? add(sum, mul(square(g), weight)) : add(sum, 0);
  });
