import { dispose, type Tensor } from "@tensorflow/tfjs-core";
import type { Member } from "../checkpoint/family.js";
import { at, lookUp } from "../at.js";
import { UserError } from "../errors.js";
import { tensorLimit, loadTaskVectors } from "../merge/vectors.js";
import { mergeTensors } from "../merge/merged.js";
import { makeTable } from "../merge/table.js";
import type { Model } from "../models/types.js";
import { elements } from "../tensor/dtype.js";

/** One model's weights, whole and on the device. */
export interface ModelWeights {
  readonly names: readonly string[];
  readonly tensors: readonly Tensor[];
  dispose(): void;
}

/** A model's weights as a forward asks for them. */
export function weightsByName({ names, tensors }: ModelWeights): (name: string) => Tensor {
  const byName = new Map(names.map((name, i) => [name, at(tensors, i)]));
  return (name) => lookUp(byName, name);
}

/** @throws UserError where a tensor is larger than the engine holds in one piece */
export async function loadWeights(model: Model, member: Member): Promise<ModelWeights> {
  const names = [...model.parameters.keys()];
  for (const [name, shape] of model.parameters) {
    const bytes = 4 * elements(shape);
    if (bytes > tensorLimit()) {
      throw new UserError(
        `${name}: it takes ${bytes} bytes, and this card binds ${tensorLimit()} at once; ` +
          "use another engine (--backend wasm runs anywhere)",
      );
    }
  }
  const vectors = await loadTaskVectors({ base: member, columns: [] }, names, {
    residency: "disk",
    tables: model.tables,
  });
  try {
    const tensors = await mergeTensors(
      vectors,
      makeTable(0, 0, () => 0),
      names.map((name) => ({ name })),
    );
    return { names, tensors, dispose: () => dispose(tensors) };
  } finally {
    vectors.dispose();
  }
}
