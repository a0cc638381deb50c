import {
  add,
  dispose,
  engine,
  mul,
  oneHot,
  cast,
  square,
  tensor1d,
  tidy,
  zerosLike,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { forward } from "../models/index.js";
import { logits, type Head } from "../models/head.js";
import { crossEntropy } from "../models/losses.js";
import type { Model } from "../models/types.js";
import { choicesOf, toBatch, type EncodedExample } from "../tasks/batches.js";
import { softmax } from "../tensor/softmax.js";
import type { ModelWeights } from "./weights.js";

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
  { tensors, names }: ModelWeights,
  { head, validation: examples }: TaskInputs,
  onExample: (done: number, of: number) => void,
): Promise<Map<string, Float32Array>> {
  const at = new Map(names.map((name, i) => [name, i]));
  const weights = (name: string) => tensors[at.get(name)!]!;
  let sums: Tensor[] = tensors.map((tensor) => zerosLike(tensor));
  try {
    for (const [n, example] of examples.entries()) {
      const batch = toBatch([example]);
      const scores = (): Tensor2D => logits(forward(model, weights, batch.rows), head, choicesOf(batch));
      const z = tidy(scores);
      const p = softmax(await z.data());
      z.dispose();
      for (const [label, probability] of p.entries()) {
        const before = sums;
        sums = tidy(() => {
          const { grads } = engine().gradients(
            () =>
              crossEntropy(
                scores(),
                cast(oneHot(tensor1d([label], "int32"), p.length), "float32") as Tensor2D,
              ),
            [...tensors],
          );
          return (grads as (Tensor | undefined)[]).map((g, i) =>
            g ? add(before[i]!, mul(square(g), probability / examples.length)) : add(before[i]!, 0),
          );
        });
        dispose(before);
      }
      onExample(n + 1, examples.length);
    }
    const out = new Map<string, Float32Array>();
    for (const [i, name] of names.entries()) out.set(name, (await sums[i]!.data()) as Float32Array);
    return out;
  } finally {
    dispose(sums);
  }
}
