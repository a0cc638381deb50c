import {
  add,
  dispose,
  engine,
  mul,
  square,
  sum,
  tidy,
  zerosLike,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import seedrandom from "seedrandom";
import { at } from "../at.js";
import { forward } from "../models/index.js";
import type { Head } from "../models/layers.js";
import { labelCrossEntropy } from "../models/losses.js";
import type { Model } from "../models/types.js";
import { toBatch, type AnswerKind, type EncodedExample } from "../tasks/batches.js";
import { decisions, isNumber, scoresOf } from "../tasks/decisions.js";
import { softmax } from "../tensor/dtype.js";
import { weightsByName, type ModelWeights } from "./weights.js";

/** A task's inputs, and the head that they are put to. */
export interface TaskInputs {
  readonly head: Head | undefined;
  readonly validation: readonly EncodedExample[];
}

/** What a gradient is taken of, and what its square counts for. */
interface Drawing {
  readonly weight: number;
  /** From the decisions (or the number) of an example, a scalar. */
  of(decided: Tensor2D): Tensor;
}

/** A class of a decision, drawn as the model holds them likely. */
function drawn(likely: readonly number[], random: () => number): number {
  let left = random();
  for (const [label, probability] of likely.entries()) {
    left -= probability;
    if (left < 0) return label;
  }
  return likely.length - 1;
}

/**
 * What may come of an example: of one decision, every class; of several, one draw of all of them (their cross terms
 * vanish on average); of a number, the number itself (the Fisher information of a normal distribution around it).
 */
function outcomesOf(
  kind: AnswerKind,
  scores: Float32Array,
  classes: number,
  random: () => number,
): Drawing[] {
  if (isNumber(kind)) return [{ weight: 1, of: (number) => sum(number) }];
  const count = scores.length / classes;
  const likely = Array.from({ length: count }, (_, i) =>
    softmax(scores.subarray(i * classes, (i + 1) * classes)),
  );
  const [only, ...others] = likely;
  if (only && others.length === 0)
    return only.map((weight, label) => ({ weight, of: (z) => labelCrossEntropy(z, [label]) }));
  const labels = likely.map((one) => drawn(one, random));
  return [{ weight: 1, of: (z) => mul(labelCrossEntropy(z, labels), count) }];
}

/**
 * Diagonal Fisher information of a model on a task's inputs (Matena & Raffel 2022): the mean over examples of
 * Σ_y p(y|x) (∂ log p(y|x) / ∂θ)², exact over the classes (or choices); where an example is several decisions (tags,
 * labels, spans), of one draw of y. Labels are not looked at. Device memory: the weights, two arrays of their size, and
 * one example's activations.
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
  const random = seedrandom("fisher");
  let sums: Tensor[] = tensors.map((tensor) => zerosLike(tensor));
  try {
    for (const [n, example] of examples.entries()) {
      const batch = toBatch([example]);
      const scores = (): Tensor2D =>
        decisions(scoresOf(forward(model, weights, batch.rows), head, batch), batch);
      const z = tidy(scores);
      const outcomes = outcomesOf(example.kind, await z.data<"float32">(), z.shape[1], random);
      z.dispose();
      for (const { weight, of } of outcomes) {
        const before = sums;
        sums = tidy(() => {
          const { grads } = engine().gradients(() => of(scores()), [...tensors]);
          return addSquares(before, grads, weight / examples.length);
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
  sums.map((before, i) => {
    const g = gradients[i];
    return g ? add(before, mul(square(g), weight)) : add(before, 0);
  });
