import { dispose, tensor1d, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { mergeTensors } from "../merge/merged.js";
import type { Table } from "../merge/table.js";
import type { Request, TaskVectors } from "../merge/vectors.js";
import { rows } from "../models/ops.js";
import type { Model, Weights } from "../models/types.js";
import type { Stage } from "./stages.js";

/** Merged weights of a stage, on the device until disposed. */
export interface StageWeights {
  readonly weights: Weights;
  /** The tensors that some expert changed: what a gradient is asked for. Of a table, the rows that the batches name. */
  readonly changed: readonly { readonly request: Request; readonly tensor: Tensor }[];
  dispose(): void;
}

/** The rows of its tables that batches name: table → row numbers, each once, rising. */
function tableRows(model: Model, batches: readonly unknown[]): Map<string, Int32Array> {
  const sets = new Map<string, Set<number>>();
  for (const batch of batches) {
    for (const { name, ids } of model.lookups(batch)) {
      if (!model.tables.has(name)) continue;
      const set = sets.get(name) ?? new Set();
      for (const id of ids) set.add(id);
      sets.set(name, set);
    }
  }
  return new Map([...sets].map(([name, set]) => [name, Int32Array.from(set).sort()]));
}

/** Merges what a stage reads, and of its tables only the rows that the batches it will see name. */
export async function openStage(model: Model, vectors: TaskVectors, table: Table, stage: Stage, batches: readonly unknown[]): Promise<StageWeights> {
  // Two blocks may read one tensor: an embedding that is the output layer too, a bias that all layers share.
  const names = [...new Set(stage.blocks.flatMap(({ shapes }) => [...shapes.keys()]))];
  const rowsOf = names.some((name) => model.tables.has(name)) ? tableRows(model, batches) : new Map<string, Int32Array>();
  const requests = names.map((name): Request => ({ name, ids: model.tables.has(name) ? rowsOf.get(name)! : undefined }));
  const tensors = await mergeTensors(vectors, table, requests);
  const byName = new Map(requests.map((request, i) => [request.name, { request, tensor: tensors[i]! }]));
  const places = new Map([...rowsOf].map(([name, ids]) => [name, new Map(Array.from(ids, (id, at) => [id, at]))]));
  const isChanged = (name: string) => vectors.tensors.get(name)!.experts.length > 0;
  const found = (name: string): Tensor => {
    const entry = byName.get(name);
    if (!entry) throw new Error(`a block asks for "${name}", which is not among its names`);
    return entry.tensor;
  };
  return {
    weights: Object.assign(found, {
      frozen: (name: string) => !isChanged(name),
      beside: (module: string) => model.beside?.get(module),
      rows(name: string, ids: Int32Array): Tensor2D {
        const place = places.get(name);
        return rows(found(name) as Tensor2D, tensor1d(place ? ids.map((id) => place.get(id)!) : ids, "int32"));
      },
    }),
    changed: [...byName.values()].filter(({ request }) => isChanged(request.name)),
    dispose: () => dispose(tensors),
  };
}
