import { tensor, tensor1d, type Tensor, type Tensor1D } from "@tensorflow/tfjs-core";
import type { Family } from "../checkpoint/family.js";
import { disposeDeltas, packDeltas, type Deltas, type Packing } from "./deltas.js";
import { groupLayers, type Granularity, type Layer } from "./layers.js";
import { mergeForward } from "./op.js";
import { rowOf, type Table } from "./table.js";

/** A tensor with a delta in at least one expert. */
export interface MergedTensor {
  readonly name: string;
  readonly base: Tensor;
  /** Of the experts that changed it; the others take no part in it. */
  readonly deltas: Deltas;
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
 * tensor; device memory: 4 bytes an entry of the base, and 4, 2 or 1 (by the packing) an entry and expert that changed it.
 * @param names canonical names, all present and of one shape (checked before)
 */
export async function loadTaskVectors(
  family: Family, names: readonly string[], granularity: Granularity, onTensor: (done: number, of: number) => void = () => {}, packing: Packing = "f32",
): Promise<TaskVectors> {
  const bases = new Map<string, Tensor>();
  const stacks = new Map<string, Deltas>();
  const dispose = () => {
    bases.forEach((base) => base.dispose());
    stacks.forEach(disposeDeltas);
  };
  try {
    for (const [i, name] of names.entries()) {
      const base = await family.base.weights(name);
      const size = base.values.length;
      const changed: number[] = [];
      let stack: Float32Array | undefined;
      for (const [column, expert] of family.experts.entries()) {
        const { values } = await expert.weights(name);
        if (values.every((value, at) => value === base.values[at])) continue;
        stack ??= new Float32Array((family.experts.length - column) * size);
        const delta = stack.subarray(changed.length * size, (changed.length + 1) * size);
        for (let at = 0; at < size; at++) delta[at] = values[at]! - base.values[at]!;
        changed.push(column);
      }
      const width = base.shape.length > 1 ? base.shape.at(-1)! : size;
      bases.set(name, tensor(base.values, [...base.shape], "float32"));
      if (stack) stacks.set(name, packDeltas(stack.length === changed.length * size ? stack : stack.slice(0, changed.length * size), changed, size / width, width, packing));
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
  dispose(): void;
}

/** A tensor's coefficients on the device, those of the experts that changed it: to be disposed. */
export function coefficientsOf({ deltas, row }: MergedTensor, table: Table): Tensor1D {
  const all = rowOf(table, row);
  return tensor1d(Float32Array.from(deltas.experts, (column) => all[column]!));
}

/** Merges one tensor with its row of a coefficient table. */
export function mergeOne(merged: MergedTensor, table: Table): Tensor {
  const coefficients = coefficientsOf(merged, table);
  const out = mergeForward(merged.base, merged.deltas, coefficients);
  coefficients.dispose();
  return out;
}

/** Merges every changed tensor with a coefficient table; the others are the base's own. The caller disposes. */
export function mergeWeights(vectors: TaskVectors, table: Table): MergedWeights {
  const tensors = vectors.merged.map((merged) => mergeOne(merged, table));
  const byName = new Map(vectors.merged.map(({ name }, i) => [name, tensors[i]!]));
  return {
    weights: (name) => byName.get(name) ?? vectors.base(name),
    dispose: () => tensors.forEach((t) => t.dispose()),
  };
}
