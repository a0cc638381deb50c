import { tensor, tensor1d, tensor2d, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import type { Family } from "../checkpoint/family.js";
import { groupLayers, type Granularity, type Layer } from "./layers.js";
import { mergeForward } from "./op.js";
import { rowOf, type Table } from "./table.js";

/** A tensor with a delta in at least one expert. */
export interface MergedTensor {
  readonly name: string;
  readonly base: Tensor;
  /** [k, N]: row i is expert i's task vector, flattened. */
  readonly deltas: Tensor2D;
  /** Its layer's row in the table. */
  readonly row: number;
}

/**
 * The frozen half of a merge, on the device: the base once, and the stacked deltas of each tensor that any
 * expert changed. A tensor that no expert changed has no layer, no delta and costs nothing.
 */
export interface TaskVectors {
  readonly tasks: readonly string[];
  readonly layers: readonly Layer[];
  readonly merged: readonly MergedTensor[];
  /** Every tensor of the base that the model reads. */
  base(name: string): Tensor;
  dispose(): void;
}

/**
 * Reads a family one tensor at a time, subtracts in float32 and uploads. Host memory: k + 1 copies of the largest
 * tensor; device memory: (k + 1) × 4 bytes an entry of the changed tensors, 4 of the others.
 * @param names canonical names, all present and of one shape (checked before)
 */
export async function loadTaskVectors(
  family: Family, names: readonly string[], granularity: Granularity, onTensor: (done: number, of: number) => void = () => {},
): Promise<TaskVectors> {
  const bases = new Map<string, Tensor>();
  const stacks = new Map<string, Tensor2D>();
  const dispose = () => [...bases.values(), ...stacks.values()].forEach((t) => t.dispose());
  const k = family.experts.length;
  try {
    for (const [i, name] of names.entries()) {
      const base = await family.base.weights(name);
      const size = base.values.length;
      let stack: Float32Array | undefined;
      for (const [row, expert] of family.experts.entries()) {
        const { values } = await expert.weights(name);
        if (values.every((value, at) => value === base.values[at])) continue;
        stack ??= new Float32Array(k * size);
        const delta = stack.subarray(row * size, (row + 1) * size);
        for (let at = 0; at < size; at++) delta[at] = values[at]! - base.values[at]!;
      }
      bases.set(name, tensor(base.values, [...base.shape], "float32"));
      if (stack) stacks.set(name, tensor2d(stack, [k, size], "float32"));
      onTensor(i + 1, names.length);
    }
  } catch (error) {
    dispose();
    throw error;
  }
  const layers = groupLayers([...stacks.keys()], granularity);
  const rowByName = new Map(layers.flatMap((layer, row) => layer.names.map((name) => [name, row] as const)));
  return {
    tasks: family.experts.map(({ label }) => label), layers, dispose,
    merged: [...stacks].map(([name, deltas]) => ({ name, deltas, base: bases.get(name)!, row: rowByName.get(name)! })),
    base(name) {
      const found = bases.get(name);
      if (!found) throw new Error(`the model asks for "${name}", which was not loaded`);
      return found;
    },
  };
}

export interface MergedWeights {
  /** Looks a tensor up by name: the merged one, or the base's where no expert changed it. */
  weights(name: string): Tensor;
  /** The merged tensors, in the order of `vectors.merged`. */
  readonly tensors: readonly Tensor[];
  dispose(): void;
}

/** Merges one tensor with its row of a coefficient table. */
export function mergeOne({ base, deltas, row }: MergedTensor, table: Table): Tensor {
  const coefficients = tensor1d(Float32Array.from(rowOf(table, row)));
  const out = mergeForward(base, deltas, coefficients);
  coefficients.dispose();
  return out;
}

/** Merges every changed tensor with a coefficient table; the others are the base's own. The caller disposes. */
export function mergeWeights(vectors: TaskVectors, table: Table): MergedWeights {
  const tensors = vectors.merged.map((merged) => mergeOne(merged, table));
  const byName = new Map(vectors.merged.map(({ name }, i) => [name, tensors[i]!]));
  return {
    tensors,
    weights: (name) => byName.get(name) ?? vectors.base(name),
    dispose: () => tensors.forEach((t) => t.dispose()),
  };
}
