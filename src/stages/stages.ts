import { dispose, tensor1d, tensor, tidy, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { at, lookUp } from "../at.js";
import { tensorLimit, piecesOf, type TaskVectors } from "../merge/vectors.js";
import { mergeTensors } from "../merge/merged.js";
import type { Table } from "../merge/table.js";
import type { Request } from "../merge/stream.js";
import { concatenated, rows } from "../models/ops.js";
import type { Model, Weights, Block } from "../models/types.js";
import { asMatrix } from "../models/layers.js";

/** Blocks that run together: their merged weights are on the device at the same time. */
export interface Stage {
  readonly blocks: readonly Block<unknown>[];
  readonly first: boolean;
  readonly last: boolean;
}

/** The whole model as one stage, or each block as a stage of its own. */
export function stagesOf(model: Model, blockwise: boolean): Stage[] {
  if (!blockwise) return [{ blocks: model.blocks, first: true, last: true }];
  const last = model.blocks.length - 1;
  return model.blocks.map((block, i) => ({ blocks: [block], first: i === 0, last: i === last }));
}

/** Activations at a block boundary, in host memory. */
export type Boundary = readonly { readonly shape: number[]; readonly values: Float32Array }[];

/** What a stage starts from: a batch, and what the stage before it left (nothing for the first). */
export interface StageInput {
  readonly batch: unknown;
  readonly boundary: Boundary;
}

export const toTensors = (boundary: Boundary): Tensor[] =>
  boundary.map(({ shape, values }) => tensor(values, shape, "float32"));

/** Copies tensors to host memory and disposes them. */
export async function toBoundary(tensors: readonly Tensor[]): Promise<Boundary> {
  const copies = [];
  for (const t of tensors) copies.push({ shape: t.shape, values: await t.data<"float32">() });
  dispose([...tensors]);
  return copies;
}

/** What a stage's blocks begin with: a batch, and activations that the stage before it left (none for the first). */
export interface StageStart {
  readonly batch: unknown;
  readonly carried: readonly Tensor[];
}

/** Runs a stage's blocks: a pure function of the weights, the batch and what the stage before it left. */
export function runStage(
  model: Model,
  stage: Stage,
  weights: Weights,
  { batch, carried }: StageStart,
): unknown {
  const start = model.start(batch);
  return stage.blocks.reduce(
    (state, block) => block.run(weights, state),
    stage.first ? start : model.carry(start, carried),
  );
}

/**
 * A stage forward, its result in host memory: what crosses to the next stage, or the last stage's
 * features [rows, width]. A block's intermediate results are gone when it has run.
 */
export async function stageForward(
  model: Model,
  stage: Stage,
  weights: Weights,
  { batch, boundary }: StageInput,
): Promise<Boundary> {
  return toBoundary(
    tidy(() => {
      const start = model.start(batch);
      let carried = toTensors(boundary);
      for (const [i, block] of stage.blocks.entries()) {
        const before = carried;
        const isFirst = stage.first && i === 0;
        carried = tidy(() => {
          const state = isFirst ? start : model.carry(start, before);
          return model.carried(block.run(weights, state));
        });
        dispose(before.filter((t) => !carried.includes(t)));
      }
      if (!stage.last) return carried;
      return [model.features(model.carry(start, carried))];
    }),
  );
}

/** A merged tensor, or what of it was asked for. */
export interface MergedTensor {
  readonly request: Request;
  readonly tensor: Tensor;
}

/** Merged weights of a stage, on the device until disposed. */
export interface StageWeights {
  readonly weights: Weights;
  /**
   * The tensors that some expert changed: what a gradient is asked for. Of a table, the rows that the
   * batches name.
   */
  readonly changed: readonly MergedTensor[];
  dispose(): void;
}

/**
 * What a stage reads by rows: tables, and where the output layer is run in pieces (output.ts), its embedding too, which
 * may be the same tensor.
 */
function tablesOf(model: Model, vectors: TaskVectors, { blocks, last }: Stage): ReadonlySet<string> {
  const isPart = blocks.length < model.blocks.length && !last;
  if (!isPart || !model.output || vectors.residency === "device") return model.tables;
  return new Set([...model.tables, model.output.weight]);
}

/** The rows of its tables that batches name: table → row numbers, each once, rising. */
function tableRows(
  model: Model,
  tables: ReadonlySet<string>,
  batches: readonly unknown[],
): Map<string, Int32Array> {
  const sets = new Map<string, Set<number>>();
  for (const batch of batches) {
    for (const { name, ids } of model.lookups(batch)) {
      if (!tables.has(name)) continue;
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
function rowsOfPieces(pieces: readonly MergedTensor[], ids: Int32Array): Tensor2D {
  const wanted = Array.from(ids, (id, position) => ({ id, position }));
  const order: number[] = [];
  const found = pieces.flatMap(({ request: { name, run }, tensor }) => {
    if (!run)
      throw new RangeError(`"${name}" is there in pieces, and one of them does not say which rows it has`);
    const [from, to] = run;
    const here = wanted.filter(({ id }) => id >= from && id < to);
    if (here.length === 0) return [];
    order.push(...here.map(({ position }) => position));
    const local = here.map(({ id }) => id - from);
    return [rows(asMatrix(tensor, name), tensor1d(local, "int32"))];
  });
  const back = new Int32Array(order.length);
  for (const [row, position] of order.entries()) back[position] = row;
  return rows(concatenated(found, 0), tensor1d(back, "int32"));
}

/**
 * Merged tensors as blocks ask for them.
 * @param rowsOf which rows are there of a table that was not made whole
 */
function weightsFrom(
  merged: readonly MergedTensor[],
  rowsOf: ReadonlyMap<string, Int32Array>,
): Pick<Weights, "rows" | "pieces"> & ((name: string) => Tensor) {
  const byName = new Map<string, MergedTensor[]>();
  for (const one of merged) byName.set(one.request.name, [...(byName.get(one.request.name) ?? []), one]);
  // Of such a table: the number of a row → where it lies.
  const locations = new Map(
    [...rowsOf].map(([name, ids]) => [name, new Map(Array.from(ids, (id, row) => [id, row]))]),
  );
  const all = (name: string) => {
    const entries = byName.get(name);
    if (!entries) throw new Error(`a block asks for "${name}", which is not among its names`);
    return entries;
  };
  const whole = (name: string): Tensor => {
    const [entry, ...others] = all(name);
    if (!entry || others.length > 0)
      throw new Error(`"${name}" is too large for one tensor on this engine, and a block asks for all of it`);
    return entry.tensor;
  };
  return Object.assign(whole, {
    pieces: (name: string) => all(name).map(({ tensor }) => asMatrix(tensor, name)),
    rows(name: string, ids: Int32Array): Tensor2D {
      const entries = all(name);
      if (entries.length > 1) return rowsOfPieces(entries, ids);
      const location = locations.get(name);
      const local = location ? ids.map((id) => lookUp(location, id)) : ids;
      return rows(asMatrix(whole(name), name), tensor1d(local, "int32"));
    },
  });
}

/** Merges what a stage reads, and of its tables only the rows that the batches it will see name. */
export async function openStage(
  { model, vectors, table }: { readonly model: Model; readonly vectors: TaskVectors; readonly table: Table },
  stage: Stage,
  batches: readonly unknown[],
): Promise<StageWeights> {
  // Two blocks may read one tensor: an embedding that is the output layer too, a bias that all layers share.
  const names = [...new Set(stage.blocks.flatMap(({ shapes }) => [...shapes.keys()]))];
  const tables = tablesOf(model, vectors, stage);
  const readsTable = names.some((name) => tables.has(name));
  const rowsOf = tableRows(model, tables, readsTable ? batches : []);
  const requests = names.flatMap((name) => requestsOf(name, vectors, rowsOf));
  const tensors = await mergeTensors(vectors, table, requests);
  const merged = requests.map((request, i) => ({ request, tensor: at(tensors, i) }));
  const isChanged = (name: string) => lookUp(vectors.tensors, name).experts.length > 0;
  return {
    weights: Object.assign(weightsFrom(merged, rowsOf), {
      frozen: (name: string) => !isChanged(name),
      adapterOf: (module: string) => model.adapters?.get(module),
    }),
    changed: merged.filter(({ request }) => isChanged(request.name)),
    dispose: () => dispose(tensors),
  };
}
