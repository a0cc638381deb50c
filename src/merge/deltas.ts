import { dispose, gather, tensor2d, tensor3d, type Tensor1D, type Tensor2D, type Tensor3D } from "@tensorflow/tfjs-core";
import { fromFloat32 } from "../tensor/dtype.js";

/** How task vectors lie on the device: 4, 2 or 1 bytes an entry. */
export const packings = ["f32", "bf16", "int8"] as const;
export type Packing = (typeof packings)[number];

/** Entries in one 32-bit word. */
const perWord: Record<Packing, number> = { f32: 1, bf16: 2, int8: 4 };

/** Task vectors of one tensor on the device: one a changed expert, each as the tensor's rows. */
export interface Deltas {
  readonly packing: Packing;
  /** The experts that changed the tensor: columns of the coefficient table, rising. */
  readonly experts: readonly number[];
  /** The tensor seen as rows of its last axis; a vector is one row. */
  readonly rows: number;
  readonly width: number;
  /** [experts, rows, words]: float32 numbers, or int32 words of two bfloat16 or four int8, low bits first. */
  readonly data: Tensor3D;
  /** [experts, rows], what an int8 of a row is multiplied by; for int8 only. */
  readonly scales?: Tensor2D | undefined;
}

/**
 * Packs stacked deltas and uploads them. bfloat16 rounds to nearest even; int8 rounds x · 127 / max|row| and keeps
 * max|row| / 127 as the row's scale, so its error is at most half of that.
 * @param stack [experts, rows, width] on the host
 */
export function packDeltas(stack: Float32Array, experts: readonly number[], rows: number, width: number, packing: Packing): Deltas {
  const e = experts.length;
  if (packing === "f32") return { packing, experts, rows, width, data: tensor3d(stack, [e, rows, width], "float32") };
  const wordsARow = Math.ceil(width / perWord[packing]);
  const packed = new Int32Array(e * rows * wordsARow);
  const scales = new Float32Array(e * rows);
  for (let r = 0; r < e * rows; r++) {
    const row = stack.subarray(r * width, (r + 1) * width);
    const at = r * wordsARow * 4;
    if (packing === "bf16") {
      new Uint8Array(packed.buffer).set(fromFloat32(row, "BF16"), at);
    } else {
      let largest = 0;
      for (const x of row) largest = Math.max(largest, Math.abs(x));
      const scale = Math.fround(largest / 127);
      scales[r] = scale;
      const bytes = new Int8Array(packed.buffer, at, width);
      if (scale > 0) for (let i = 0; i < width; i++) bytes[i] = Math.max(-127, Math.min(127, Math.round(row[i]! / scale)));
    }
  }
  return {
    packing, experts, rows, width, data: tensor3d(packed, [e, rows, wordsARow], "int32"),
    ...(packing === "int8" && { scales: tensor2d(scales, [e, rows], "float32") }),
  };
}

/** The deltas of some rows of a table; the caller disposes. */
export function deltasOfRows(deltas: Deltas, ids: Tensor1D): Deltas {
  const { data, scales } = deltas;
  return { ...deltas, rows: ids.size, data: gather(data, ids, 1), scales: scales && gather(scales, ids, 1) };
}

export const disposeDeltas = ({ data, scales }: Deltas): void => dispose(scales ? [data, scales] : [data]);
