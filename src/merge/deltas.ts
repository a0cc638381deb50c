import {
  dispose,
  reshape,
  scatterND,
  tensor1d,
  tensor2d,
  tensor3d,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { joined } from "../tensor/joined.js";
import type { PackedRows, Packing } from "./packing.js";

/** Task vectors of some rows of one tensor on the device, one for each expert that changed the tensor. */
export interface Deltas {
  readonly packing: Packing;
  /** The experts that changed the tensor: columns of the coefficient table, rising. */
  readonly experts: readonly number[];
  /** The tensor seen as rows of its last axis; a vector is one row. */
  readonly rows: number;
  readonly width: number;
  /**
   * [experts, rows, words]: float32 numbers, or int32 words of two bfloat16 or four int8, low bits first.
   * Sparse: [entries], the numbers that were kept, expert after expert.
   */
  readonly data: Tensor;
  /** [experts, rows], what an int8 of a row is multiplied by; for int8 only. */
  readonly scales?: Tensor2D | undefined;
  /** [entries], where each kept number stands in experts × rows × width; for sparse only. */
  readonly index?: Tensor1D | undefined;
}

/** The rows of all experts as they lie, where they are float32 and lie side by side already. */
function inOnePiece(vectors: readonly PackedRows[]): Float32Array | undefined {
  const [{ data: first }] = vectors as [PackedRows];
  if (!(first instanceof Float32Array)) return undefined;
  const together = vectors.every(
    ({ data }, i) =>
      data.buffer === first.buffer &&
      data.byteOffset === first.byteOffset + 4 * i * first.length &&
      data.length === first.length,
  );
  return together
    ? new Float32Array(first.buffer, first.byteOffset, vectors.length * first.length)
    : undefined;
}

/** Puts packed rows of several experts side by side on the device. */
export function uploadDeltas(
  vectors: readonly PackedRows[],
  experts: readonly number[],
  rows: number,
  width: number,
  packing: Packing,
): Deltas {
  const e = experts.length;
  if (packing === "sparse") {
    const total = vectors.reduce((sum, { data }) => sum + data.length, 0);
    // Engines have no empty scatter: one zero stands for nothing.
    const [values, index] = [new Float32Array(Math.max(1, total)), new Int32Array(Math.max(1, total))];
    let at = 0;
    for (const [i, vector] of vectors.entries()) {
      values.set(vector.data, at);
      for (const place of vector.index!) index[at++] = i * rows * width + place;
    }
    return {
      packing,
      experts,
      rows,
      width,
      data: tensor1d(values, "float32"),
      index: tensor1d(index, "int32"),
    };
  }
  const all = inOnePiece(vectors) ?? joined(vectors.map(({ data }) => data));
  return {
    packing,
    experts,
    rows,
    width,
    data: tensor3d(all, [e, rows, all.length / e / rows], packing === "f32" ? "float32" : "int32"),
    scales:
      packing === "int8"
        ? tensor2d(joined(vectors.map(({ scales }) => scales!)), [e, rows], "float32")
        : undefined,
  };
}

/** Sparse deltas as float32, [experts · rows · width], by ops that every engine has. */
export const unpackSparse = ({ data, index, experts, rows, width }: Deltas): Tensor =>
  scatterND(reshape(index!, [-1, 1]), data, [experts.length * rows * width]);

export const disposeDeltas = ({ data, scales, index }: Deltas): void =>
  dispose([data, scales, index].filter((t) => t !== undefined));
