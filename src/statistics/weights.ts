import { dispose, type Tensor } from "@tensorflow/tfjs-core";
import type { Member } from "../checkpoint/family.js";
import { mergeTensors } from "../merge/merged.js";
import { makeTable } from "../merge/table.js";
import { loadTaskVectors } from "../merge/vectors.js";
import type { Model } from "../models/types.js";

/** One model's weights, whole and on the device. */
export interface ModelWeights {
  readonly names: readonly string[];
  readonly tensors: readonly Tensor[];
  dispose(): void;
}

export async function loadWeights(model: Model, member: Member): Promise<ModelWeights> {
  const names = [...model.parameters.keys()];
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
