import { at } from "../at.js";

/**
 * A merge given by coefficients: for each tensor, one number a leaf. A node of a linear method is one,
 * and so is a whole tree (SuperMerge, hierarchical merging): a leaf's coefficient is the product of the
 * gated ones on its path.
 */
export interface FlatMerge {
  /** The leaves' tasks. */
  readonly leaves: readonly string[];
  /** Tensor → one coefficient a leaf. A tensor that no leaf changes is not there. */
  readonly tensors: Readonly<Record<string, readonly number[]>>;
}

/** A leaf alone: itself. */
export const leafMerge = (task: string): FlatMerge => ({ leaves: [task], tensors: {} });

/** A tensor's name, and those of what an adapter has beside it: it was trained as the one or the other. */
const namesOf = (tensor: string): string[] => [
  tensor,
  tensor.replace(/\.weight$/, ".lora_d"),
  tensor.replace(/\.(weight|bias)$/, ".ia3_l"),
];

/** The coefficients of a merge's leaves in one tensor; a leaf alone has 1 everywhere. */
export function coefficientsIn(merge: FlatMerge, tensor: string): readonly number[] {
  if (merge.leaves.length === 1) return [1];
  const name = namesOf(tensor).find((one) => Object.hasOwn(merge.tensors, one));
  return (name !== undefined && merge.tensors[name]) || merge.leaves.map(() => 0);
}

/**
 * Multiplies a node's own coefficients into those of its children.
 * @param own tensor → one coefficient a child
 */
export function flatten(
  children: readonly FlatMerge[],
  own: ReadonlyMap<string, readonly number[]>,
): FlatMerge {
  return {
    leaves: children.flatMap(({ leaves }) => leaves),
    tensors: Object.fromEntries(
      [...own].map(([tensor, row]) => [
        tensor,
        children.flatMap((child, c) => coefficientsIn(child, tensor).map((x) => at(row, c) * x)),
      ]),
    ),
  };
}
