import {
  add,
  clone,
  concat,
  dispose,
  reshape,
  slice,
  tensor1d,
  tidy,
  type Tensor,
  type Tensor1D,
} from "@tensorflow/tfjs-core";
import { at, f64, lookUp } from "../at.js";
import { mergeForward, mergeGradient, type Deltas } from "./op.js";
import type { FamilyTensor } from "./source.js";
import { rowOf, type Table } from "./table.js";
import type { Request, StreamedPart } from "./stream.js";
import { piecesOf, type TaskVectors } from "./vectors.js";

/** A part's coefficients on the device: those of the experts that changed the tensor. The caller disposes. */
function coefficientsOf({ row }: FamilyTensor, { experts }: Deltas, table: Table): Tensor1D {
  const all = rowOf(table, row);
  return tensor1d(Float32Array.from(experts, (column) => f64(all, column)));
}

function mergePart({ tensor, base, deltas, rows }: StreamedPart, table: Table): Tensor {
  return tidy(() => {
    const merged = deltas && mergeForward(base, deltas, coefficientsOf(tensor, deltas, table));
    return reshape(merged ?? clone(base), [rows, tensor.width]);
  });
}

/**
 * Merges tensors with a coefficient table, in the order of the requests: [rows asked for, width], or the tensor's own
 * shape where it was asked for whole. The caller disposes. Device memory beside the results: one part of the task
 * vectors (none where they live on the device), and once more the tensor in hand where it comes in several parts.
 */
export async function mergeTensors(
  vectors: TaskVectors,
  table: Table,
  requests: readonly Request[],
): Promise<Tensor[]> {
  const done: Tensor[] = [];
  let pieces: Tensor[] = [];
  const finish = () => {
    const { ids, run, name } = at(requests, done.length);
    const { shape, width } = lookUp(vectors.tensors, name);
    const outShape = ids || run ? [-1, width] : [...shape];
    const out = tidy(() => reshape(pieces.length === 1 ? at(pieces, 0) : concat(pieces, 0), outShape));
    dispose(pieces);
    pieces = [];
    done.push(out);
  };
  try {
    for await (const part of vectors.stream(requests)) {
      if (part.request > done.length) finish();
      pieces.push(mergePart(part, table));
    }
    if (pieces.length) finish();
    return done;
  } catch (error) {
    dispose([...pieces, ...done]);
    throw error;
  }
}

/**
 * A merged tensor's numbers in host memory. One that is over the engine's limit is merged a piece at a
 * time, so that no tensor on the device is.
 */
export async function mergedValues(vectors: TaskVectors, table: Table, name: string): Promise<Float32Array> {
  const tensor = lookUp(vectors.tensors, name);
  const runs = piecesOf(tensor);
  const numbersOf = async (request: Request): Promise<Float32Array> => {
    const merged = at(await mergeTensors(vectors, table, [request]), 0);
    const numbers = await merged.data<"float32">();
    merged.dispose();
    return numbers;
  };
  if (runs.length === 1) return numbersOf({ name });
  const values = new Float32Array(tensor.rows * tensor.width);
  for (const run of runs) values.set(await numbersOf({ name, run }), run[0] * tensor.width);
  return values;
}

/**
 * ⟨∂L/∂θ, τ_i⟩ of each request's tensor (or rows) for the experts that changed it, [experts] each. The
 * caller disposes.
 * @param gradients of the shape that {@link mergeTensors} gives
 */
export async function innerProducts(
  vectors: TaskVectors,
  requests: readonly Request[],
  gradients: readonly Tensor[],
): Promise<Tensor[]> {
  const sums: Tensor[] = [];
  try {
    for await (const { request, from, rows, whole, tensor, deltas } of vectors.stream(requests)) {
      if (!deltas) throw new Error(`no expert changed "${tensor.name}": it has no coefficients`);
      const before = sums[request];
      sums[request] = tidy(() => {
        const g = at(gradients, request);
        const mine = whole ? g : slice(reshape(g, [-1, tensor.width]), [from, 0], [rows, -1]);
        const products = mergeGradient(mine, deltas);
        return before ? add(before, products) : products;
      });
      before?.dispose();
    }
    return sums;
  } catch (error) {
    dispose(sums.filter(Boolean));
    throw error;
  }
}
