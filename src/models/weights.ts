/** How blocks read weights: by name, with the rank that they need. */
import { tensor1d, type Tensor, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";
import { rows } from "./ops.js";
import type { Lookup, Weights } from "./types.js";

export const isMatrix = (tensor: Tensor): tensor is Tensor2D => tensor.rank === 2;
export const isVector = (tensor: Tensor): tensor is Tensor1D => tensor.rank === 1;

const wrongRank = (what: string, tensor: Tensor | undefined, wanted: string) =>
  new Error(`${what} must be ${wanted}, it is ${tensor ? `[${tensor.shape.join(", ")}]` : "missing"}`);

/** A tensor as the matrix that it is. @param what it, for the error where it is none */
export function asMatrix(tensor: Tensor | undefined, what: string): Tensor2D {
  if (!tensor || !isMatrix(tensor)) throw wrongRank(what, tensor, "a matrix");
  return tensor;
}

/** A weight that is a matrix. */
export const weightMatrix = (weights: Weights, name: string): Tensor2D => asMatrix(weights(name), name);

/** A weight that is a vector: a bias, the scale of a norm. */
export function weightVector(weights: Weights, name: string): Tensor1D {
  const tensor = weights(name);
  if (!isVector(tensor)) throw wrongRank(name, tensor, "a vector");
  return tensor;
}

/** Whether nobody asks for the gradient of any of these. */
export const areFrozen = (weights: Weights, ...names: readonly string[]): boolean =>
  names.every((name) => weights.frozen?.(name) ?? false);

/** Rows of a table by its name: only those, where the weights can make them alone. */
export const lookUpRows = (weights: Weights, { name, ids }: Lookup): Tensor2D =>
  weights.rows?.(name, ids) ?? rows(weightMatrix(weights, name), tensor1d(ids, "int32"));
