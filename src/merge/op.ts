import {
  dispose,
  gather,
  reshape,
  scatterND,
  tensor1d,
  tensor2d,
  tensor3d,
  add,
  customGrad,
  engine,
  getBackend,
  getKernel,
  matMul,
  sum,
  tidy,
  zeros,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { joined, type RowShape } from "../tensor/dtype.js";
import { packedAs, type PackedRows } from "./packing.js";

/** Task vectors of some rows of one tensor on the device, one for each expert that changed the tensor. */
export type Deltas = DeltaShape &
  (
    | {
        readonly packing: "f32" | "bf16" | "f16";
        /** [experts, rows, words]: float32 numbers, or int32 words of two bfloat16 (or float16), low bits first. */
        readonly data: Tensor;
      }
    | {
        readonly packing: "int8";
        /** [experts, rows, words]: int32 words of four int8, low bits first. */
        readonly data: Tensor;
        /** [experts, rows], what an int8 of a row is multiplied by. */
        readonly scales: Tensor2D;
      }
    | SparseDeltas
  );

/** The tensor seen as rows of its last axis; a vector is one row. */
interface DeltaShape extends RowShape {
  /** The experts that changed the tensor: columns of the coefficient table, rising. */
  readonly experts: readonly number[];
}

interface SparseDeltas extends DeltaShape {
  readonly packing: "sparse";
  /** [entries], the numbers that were kept, expert after expert. */
  readonly data: Tensor;
  /** [entries], where each kept number stands in experts × rows × width. */
  readonly index: Tensor1D;
}

/** The rows of all experts as they lie, where they lie side by side already. */
function inOnePiece(vectors: readonly Float32Array[]): Float32Array | undefined {
  const first = at(vectors, 0);
  const together = vectors.every(
    (data, i) =>
      data.buffer === first.buffer &&
      data.byteOffset === first.byteOffset + 4 * i * first.length &&
      data.length === first.length,
  );
  if (!together) return undefined;
  return new Float32Array(first.buffer, first.byteOffset, vectors.length * first.length);
}

function uploadSparse(vectors: readonly PackedRows[], shape: DeltaShape): Deltas {
  const kept = packedAs(vectors, "sparse");
  // Engines have no empty scatter: one zero stands for nothing.
  const total = Math.max(
    1,
    kept.reduce((sum, { data }) => sum + data.length, 0),
  );
  const [values, index] = [new Float32Array(total), new Int32Array(total)];
  let next = 0;
  for (const [i, vector] of kept.entries()) {
    values.set(vector.data, next);
    for (const place of vector.index) index[next++] = i * shape.rows * shape.width + place;
  }
  return {
    ...shape,
    packing: "sparse",
    data: tensor1d(values, "float32"),
    index: tensor1d(index, "int32"),
  };
}

/** Puts packed rows of several experts, all packed alike, side by side on the device. */
export function uploadDeltas(
  vectors: readonly PackedRows[],
  experts: readonly number[],
  { rows, width }: RowShape,
): Deltas {
  const shape: DeltaShape = { experts, rows, width };
  const cube = (all: Float32Array | Int32Array, dtype: "float32" | "int32") =>
    tensor3d(all, [experts.length, rows, all.length / experts.length / rows], dtype);
  const { packing } = at(vectors, 0);
  switch (packing) {
    case "f32": {
      const numbers = packedAs(vectors, packing).map(({ data }) => data);
      return { ...shape, packing, data: cube(inOnePiece(numbers) ?? joined(numbers), "float32") };
    }
    case "bf16":
    case "f16": {
      const words = packedAs(vectors, packing).map(({ data }) => data);
      return { ...shape, packing, data: cube(joined(words), "int32") };
    }
    case "int8": {
      const packed = packedAs(vectors, packing);
      const words = joined(packed.map(({ data }) => data));
      const scales = joined(packed.map((one) => one.scales));
      return {
        ...shape,
        packing,
        data: cube(words, "int32"),
        scales: tensor2d(scales, [experts.length, rows], "float32"),
      };
    }
    default:
      return uploadSparse(vectors, shape);
  }
}

/** Sparse deltas as float32, [experts · rows · width], by ops that every engine has. */
export const scatterSparse = ({ data, index, experts, rows, width }: SparseDeltas): Tensor =>
  scatterND(reshape(index, [-1, 1]), data, [experts.length * rows * width]);

/** Rows of [experts, rows, words]: words through the engine's own kernel, where it has one. */
const takenRows = (data: Tensor, ids: Tensor1D): Tensor =>
  data.dtype === "int32" && getKernel("TakeRows", getBackend())
    ? engine().runKernel("TakeRows", { data, ids })
    : gather(data, ids, 1);

/** Some rows of deltas, in the order in which they are asked for; the caller's. Sparse ones have none to take. */
export function deltaRows(deltas: Exclude<Deltas, SparseDeltas>, ids: Tensor1D): Deltas {
  const shape = { experts: deltas.experts, rows: ids.size, width: deltas.width };
  const data = takenRows(deltas.data, ids);
  if (deltas.packing !== "int8") return { ...shape, packing: deltas.packing, data };
  return { ...shape, packing: deltas.packing, data, scales: gather(deltas.scales, ids, 1) };
}

export function disposeDeltas(deltas: Deltas): void {
  dispose(deltas.data);
  if (deltas.packing === "int8") dispose(deltas.scales);
  if (deltas.packing === "sparse") dispose(deltas.index);
}

/** Runs one of the engine's own kernels on deltas (backend/), where it has it. */
function kernel(
  op: "MergeDeltas" | "DeltaProducts" | "UnpackDeltas",
  deltas: Deltas,
  inputs: Record<string, Tensor> = {},
): Tensor | undefined {
  const { packing, rows, width, data } = deltas;
  const name = `${op}_${packing}`;
  const packed: Record<string, Tensor> = packing === "int8" ? { data, scales: deltas.scales } : { data };
  return getKernel(name, getBackend()) && engine().runKernel(name, { ...inputs, ...packed }, { rows, width });
}

/**
 * Deltas as float32, [experts, N]: a view of them, or for an engine that can only unpack, all of one
 * tensor at once.
 */
export function unpacked(deltas: Deltas): Tensor2D {
  const flat = flatDeltas(deltas);
  if (!flat)
    throw new Error(`the ${getBackend()} engine has no kernel for deltas packed as ${deltas.packing}`);
  return reshape(flat, [deltas.experts.length, -1]);
}

function flatDeltas(deltas: Deltas): Tensor | undefined {
  if (deltas.packing === "f32") return deltas.data;
  return deltas.packing === "sparse" ? scatterSparse(deltas) : kernel("UnpackDeltas", deltas);
}

/** One packed tensor alone as float32, [rows · width], on any engine. */
export const unpackedRows = (deltas: Deltas): Tensor =>
  tidy(() => {
    const flat = flatDeltas(deltas);
    if (flat) return reshape(flat, [-1]);
    // An engine that merges packed numbers and does not unpack them.
    return mergeForward(zeros([deltas.rows * deltas.width]), deltas, tensor1d([1]));
  });

/**
 * base + Σ_i c_i τ_i, one pass over the stacked deltas.
 * @param base any shape, N = rows × width elements
 * @param coefficients [experts of the deltas]
 * @returns a tensor of base's shape
 */
export function mergeForward(base: Tensor, deltas: Deltas, coefficients: Tensor1D): Tensor {
  return tidy(() => {
    const merged = kernel("MergeDeltas", deltas, { base, coefficients });
    if (merged) return reshape(merged, base.shape);
    const change = matMul(reshape(coefficients, [1, -1]), unpacked(deltas));
    return add(base, reshape(change, base.shape));
  });
}

/**
 * ∂L/∂c_i = ⟨∂L/∂θ, τ_i⟩ for every expert, one more pass over the deltas.
 * @param dTheta gradient of the loss with respect to the merged tensor, N elements
 * @returns [experts of the deltas]
 */
export function mergeGradient(dTheta: Tensor, deltas: Deltas): Tensor1D {
  return tidy(() => {
    const products = kernel("DeltaProducts", deltas, { dTheta });
    // Several groups of threads, each with its own sums.
    if (products) return products.shape[0] === 1 ? reshape(products, [-1]) : sum<Tensor1D>(products, 0);
    return reshape(matMul(unpacked(deltas), reshape(dTheta, [-1, 1])), [-1]);
  });
}

/**
 * The merge of one tensor as a differentiable op of its coefficients (SuperMerge eq. 4–5 after the gate).
 * Base and deltas are constants that stay off the tape: between forward and backward nothing of size k × N is kept.
 */
export function mergeTensor(base: Tensor, deltas: Deltas, coefficients: Tensor1D): Tensor {
  const op = customGrad((row) => ({
    value: mergeForward(base, deltas, row as Tensor1D),
    gradFunc: (dTheta) => mergeGradient(dTheta, deltas),
  }));
  return op(coefficients);
}
