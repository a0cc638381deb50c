import { reshape, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";
import { UserError } from "../errors.js";
import { bert } from "./bert.js";
import { layout } from "./layout.js";
import { linear } from "./ops.js";
import type { Model, ModelFamily, TokenRow, Weights } from "./types.js";

/** Every model family: add one with a file of its own and a line here. */
const families: readonly ModelFamily[] = [bert];

/** The family of a `model_type`; undefined where it is none that can be trained. */
export const familyOfType = (type: unknown): ModelFamily | undefined => families.find((family) => family.type === type);

/** The family of a config. @throws UserError naming the families there are. */
export function familyOf(config: Readonly<Record<string, unknown>>, where: string): ModelFamily {
  const family = familyOfType(config["model_type"]);
  if (!family) {
    const known = families.map(({ type }) => type).join(", ");
    throw new UserError(`${where}: model_type ${JSON.stringify(config["model_type"])} is not one train-merge can train; it knows ${known}`);
  }
  return family;
}

/** Runs a model from rows of tokens to features [rows, width], in the rows' order. */
export function forward(model: Model, weights: Weights, rows: readonly TokenRow[]): Tensor2D {
  const batch = layout(rows, model.padId, model.width);
  return model.features(model.blocks.reduce((state, block) => block.run(weights, state), model.start(batch)));
}

/** A task's head: weight [outputs, width], bias [outputs]. */
export interface Head {
  readonly weight: Tensor2D;
  readonly bias: Tensor1D;
  /** False only where the head itself is trained. */
  readonly frozen?: boolean;
}

/**
 * Logits of a task: features through its head. With `choices`, the head scores each row and the rows of one
 * example stand side by side: [size / choices, choices]; without, [size, outputs].
 */
export function logits(features: Tensor2D, head: Head, choices: number | undefined): Tensor2D {
  const scores = linear(features, [{ ...head, frozen: head.frozen ?? true }]);
  return choices === undefined ? scores : reshape(scores, [-1, choices]);
}
