/** What a pass through some blocks takes beside their weights. */
import { at, lookUp } from "../at.js";
import { outputPieceBytes } from "../merge/residency.js";
import { entries, sum, type FamilyShape, type StepShape, type TensorDescription } from "./shape.js";

/**
 * Floats that autodiff keeps for a token of a block, from the widths of its products: each product's result, what its
 * activation function keeps, and what normalisation and attention keep beside it. Attention adds a
 * score for each head and token of the row. Measured on BERT's blocks: some 50 widths, of which the
 * products' results are 9.
 */
export function activationFloats(
  family: FamilyShape,
  names: readonly string[],
  { length }: StepShape,
): number {
  const inside = new Set(names);
  const outs = sum(
    family.tensors
      .filter(({ name, shape, table }) => inside.has(name) && shape.length === 2 && !table)
      .map(({ shape }) => at(shape, 0)),
  );
  return 5.4 * outs + (family.keptScores ?? 1) * family.heads * length;
}

/**
 * Floats a token that the backward of one operation takes for itself: of GELU, seven times the widest
 * product's result.
 */
export const transientFloats = (family: FamilyShape): number =>
  7 *
  Math.max(
    ...family.tensors
      .filter(({ shape, table }) => shape.length === 2 && !table)
      .map(({ shape }) => Math.min(at(shape, 0), 4 * family.width)),
  );

/** A family without its output layer, which is run in pieces; undefined where it is not. */
export function streamed(family: FamilyShape, step: StepShape) {
  const { output } = family;
  if (output === undefined) return undefined;
  const isTable = ({ name, table }: TensorDescription) => table || name === output;
  const byName = new Map(family.tensors.map((tensor) => [tensor.name, tensor]));
  const made = (name: string) => {
    const tensor = lookUp(byName, name);
    // What is the embedding, too, is read by rows elsewhere.
    return isTable(tensor) ? Math.min(entries(tensor), step.tokens * at(tensor.shape, -1)) : entries(tensor);
  };
  const others = family.blocks.filter(({ names }) => names.some((name) => name !== output));
  const pass = Math.min(step.tokens, step.microBatch);
  const rows = outputPieceBytes / 4 / family.width;
  const kept = others.map(({ names }) => {
    const plain = names.filter((name) => name !== output);
    return 4 * pass * activationFloats(family, plain, step);
  });
  return {
    largestBlock: Math.max(...others.map(({ names }) => sum(names.map(made)))),
    largestTensor: Math.max(...family.tensors.filter((one) => !isTable(one)).map(entries)),
    kept: Math.max(...kept),
    // A piece, merged, of the base, and its gradient twice; the scores of a pass for it, four times.
    output: 5 * outputPieceBytes + 4 * 4 * pass * rows,
  };
}
