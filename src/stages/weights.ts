import { dispose, tensor1d, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { tensorLimit } from "../merge/limit.js";
import { mergeTensors } from "../merge/merged.js";
import type { Table } from "../merge/table.js";
import type { Request } from "../merge/stream.js";
import { piecesOf, type TaskVectors } from "../merge/vectors.js";
import { joined, rows } from "../models/ops.js";
import type { Model, Weights } from "../models/types.js";
import type { Stage } from "./stages.js";

/** Merged weights of a stage, on the device until disposed. */
export interface StageWeights {
  readonly weights: Weights;
  /**
   * The tensors that some expert changed: what a gradient is asked for. Of a table, the rows that the
   * batches name.
   */
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

/**
 * What a stage asks for of a tensor: the rows of a table, the whole tensor, or all of it in pieces
 * where it is too large.
 */
function requestsOf(name: string, vectors: TaskVectors, tables: ReadonlyMap<string, Int32Array>): Request[] {
  const ids = tables.get(name);
  if (ids) return [{ name, ids }];
  const tensor = vectors.tensors.get(name);
  // Where only the task vectors of all experts together are too large, the merged tensor still is one.
  if (!tensor || 4 * tensor.rows * tensor.width <= tensorLimit()) return [{ name }];
  return piecesOf(tensor).map((run) => ({ name, run }));
}

/** Rows of a tensor in pieces, in the order in which they are asked for. */
function rowsOfPieces(
  pieces: readonly { readonly run: readonly [from: number, to: number]; readonly tensor: Tensor2D }[],
  ids: Int32Array,
): Tensor2D {
  const order: number[] = [];
  const found = pieces.flatMap(({ run: [from, to], tensor }) => {
    const at = Array.from(ids, (_, i) => i).filter((i) => ids[i]! >= from && ids[i]! < to);
    if (at.length === 0) return [];
    order.push(...at);
    return [
      rows(
        tensor,
        tensor1d(
          at.map((i) => ids[i]! - from),
          "int32",
        ),
      ),
    ];
  });
  const back = new Int32Array(order.length);
  order.forEach((i, place) => (back[i] = place));
  return rows(joined(found, 0), tensor1d(back, "int32"));
}

/** Merges what a stage reads, and of its tables only the rows that the batches it will see name. */
export async function openStage(
  model: Model,
  vectors: TaskVectors,
  table: Table,
  stage: Stage,
  batches: readonly unknown[],
): Promise<StageWeights> {
  // Two blocks may read one tensor: an embedding that is the output layer too, a bias that all layers share.
  const names = [...new Set(stage.blocks.flatMap(({ shapes }) => [...shapes.keys()]))];
  const rowsOf = names.some((name) => model.tables.has(name))
    ? tableRows(model, batches)
    : new Map<string, Int32Array>();
  const requests = names.flatMap((name) => requestsOf(name, vectors, rowsOf));
  const tensors = await mergeTensors(vectors, table, requests);
  const merged = requests.map((request, i) => ({ request, tensor: tensors[i]! }));
  const byName = new Map<string, { readonly request: Request; readonly tensor: Tensor }[]>();
  for (const one of merged) byName.set(one.request.name, [...(byName.get(one.request.name) ?? []), one]);
  const places = new Map(
    [...rowsOf].map(([name, ids]) => [name, new Map(Array.from(ids, (id, at) => [id, at]))]),
  );
  const isChanged = (name: string) => vectors.tensors.get(name)!.experts.length > 0;
  const all = (name: string) => {
    const entries = byName.get(name);
    if (!entries) throw new Error(`a block asks for "${name}", which is not among its names`);
    return entries;
  };
  const found = (name: string): Tensor => {
    const [entry, ...others] = all(name);
    if (others.length > 0)
      throw new Error(`"${name}" is too large for one tensor on this engine, and a block asks for all of it`);
    return entry!.tensor;
  };
  return {
    weights: Object.assign(found, {
      frozen: (name: string) => !isChanged(name),
      adapterOf: (module: string) => model.adapters?.get(module),
      pieces: (name: string) => all(name).map(({ tensor }) => tensor as Tensor2D),
      rows(name: string, ids: Int32Array): Tensor2D {
        const entries = all(name);
        if (entries.length > 1)
          return rowsOfPieces(
            entries.map(({ request, tensor }) => ({ run: request.run!, tensor: tensor as Tensor2D })),
            ids,
          );
        const place = places.get(name);
        return rows(
          found(name) as Tensor2D,
          tensor1d(place ? ids.map((id) => place.get(id)!) : ids, "int32"),
        );
      },
    }),
    changed: merged.filter(({ request }) => isChanged(request.name)),
    dispose: () => dispose(tensors),
  };
}
