import { reshape, tanh, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";
import { affine } from "./ops.js";
import type { HeadNames } from "./types.js";

/** Canonical names of all tensors that a head may have, whichever of them are there. */
export function headTensors(names: HeadNames | undefined): string[] {
  if (!names) return [];
  const { dense, weight, bias } = names;
  const inFront = dense === undefined ? [] : [`${dense}.weight`, `${dense}.bias`];
  return [...inFront, weight, bias].filter((name) => name !== undefined);
}

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
  const scores = head ? headScores(features, head) : features;
  if (choices === undefined) return scores;
  return reshape(scores, [-1, choices]);
}

function headScores(features: Tensor2D, { weight, bias, dense, frozen = true }: Head): Tensor2D {
  const output = { weight, bias, frozen };
  if (!dense) return affine(features, [output]);
  return affine(tanh(affine(features, [{ ...dense, frozen }])), [output]);
}
