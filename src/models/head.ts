import { reshape, tanh, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";
import { linear } from "./ops.js";
import type { HeadNames } from "./types.js";

/** Canonical names of all tensors that a head may have, whichever of them are there. */
export const headTensors = (names: HeadNames | undefined): string[] =>
  names === undefined
    ? []
    : [
        ...(names.dense === undefined ? [] : [`${names.dense}.weight`, `${names.dense}.bias`]),
        names.weight,
        ...(names.bias === undefined ? [] : [names.bias]),
      ];

/** A task's head: weight [outputs, width], bias [outputs]. */
export interface Head {
  readonly weight: Tensor2D;
  readonly bias?: Tensor1D | undefined;
  /** A dense layer and tanh in front: weight [width, width], bias [width]. */
  readonly dense?: { readonly weight: Tensor2D; readonly bias: Tensor1D } | undefined;
  /** False only where the head itself is trained. */
  readonly frozen?: boolean;
}

/**
 * Logits of a task: features through its head; without one, the features are the scores of rows
 * themselves. With `choices`, the head scores each row and the rows of one example stand side by side:
 * [size / choices, choices]; without, [size, outputs].
 */
export function logits(features: Tensor2D, head: Head | undefined, choices: number | undefined): Tensor2D {
  const frozen = head?.frozen ?? true;
  const inner = head?.dense ? tanh(linear(features, [{ ...head.dense, frozen }])) : features;
  const scores = head ? linear(inner, [{ weight: head.weight, bias: head.bias, frozen }]) : inner;
  return choices === undefined ? scores : reshape(scores, [-1, choices]);
}
