/** A base on the device in fewer bits than float32: unpacked a tensor at a time, when a block needs it. */
import {
  concat,
  dispose,
  floor,
  gather,
  getBackend,
  mul,
  reshape,
  sub,
  tensor,
  tensor1d,
  tensor2d,
  tidy,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { f32 } from "../at.js";
import { rowShape, toFloat32, type HostTensor, type RowShape } from "../tensor/dtype.js";
import { disposeDeltas, unpackedRows, uploadDeltas, type Deltas } from "./op.js";
import { packRows, unpackRows, type BasePacking } from "./packing.js";

/** A tensor of a base as it lies on the device. */
export type HeldBase =
  | { readonly packing: "f32"; readonly tensor: Tensor }
  /** Words of 16 or 8 bits, as task vectors are packed. */
  | { readonly packing: "words"; readonly shape: readonly number[]; readonly words: Deltas }
  /**
   * Two entries a byte: an entry of a row's first half, plus 8, and 16 times one of its second half. [rows, groups] is
   * what the entries of a group are multiplied by.
   */
  | {
      readonly packing: "int4";
      readonly shape: readonly number[];
      readonly words: Deltas;
      readonly scales: Tensor2D;
    };

/** Entries of a row that share a scale in four bits: as many of these as divide it. */
const groupSizes = [64, 32, 16, 8];

/** Vectors and short rows stay as they are: they are few, and a model is most sensitive to its norms. */
const isPacked = ({ rows, width }: RowShape): boolean => rows > 1 && width >= 16 && width % 2 === 0;

const groupOf = (width: number): number => groupSizes.find((size) => width % size === 0) ?? width;

/** Four bits an entry: bytes [rows, width / 2], and scales [rows, groups]. */
function packNibbles(values: Float32Array, { rows, width }: RowShape) {
  const [size, half] = [groupOf(width), width / 2];
  const groups = width / size;
  const scales = new Float32Array(rows * groups);
  const bytes = new Float32Array(rows * half);
  for (let r = 0; r < rows; r++) {
    const row = values.subarray(r * width, (r + 1) * width);
    for (let g = 0; g < groups; g++) {
      let largest = 0;
      for (const value of row.subarray(g * size, (g + 1) * size))
        largest = Math.max(largest, Math.abs(value));
      scales[r * groups + g] = largest / 7;
    }
    const code = (i: number) => {
      const scale = f32(scales, r * groups + Math.floor(i / size));
      return scale > 0 ? Math.max(-7, Math.min(7, Math.round(f32(row, i) / scale))) : 0;
    };
    for (let i = 0; i < half; i++) bytes[r * half + i] = code(i) + 8 + 16 * code(half + i);
  }
  return { bytes, scales, groups };
}

/** Whole numbers of a byte each, as they are: a scale of 1. */
function bytesAsWords(bytes: Float32Array, shape: RowShape) {
  const data = new Int32Array(shape.rows * Math.ceil(shape.width / 4));
  const target = new Int8Array(data.buffer);
  const each = (4 * data.length) / shape.rows;
  for (let r = 0; r < shape.rows; r++)
    target.set(bytes.subarray(r * shape.width, (r + 1) * shape.width), r * each);
  return { packing: "int8" as const, data, scales: new Float32Array(shape.rows).fill(1) };
}

const unpackNibbles = (words: Deltas, scales: Tensor2D, [rows, width]: [number, number]): Tensor =>
  tidy(() => {
    const bytes = reshape(unpackedRows(words), [rows, width / 2]);
    const second = floor(mul(bytes, 1 / 16));
    const first = sub(sub(bytes, mul(second, 16)), 8);
    const codes = reshape(concat([first, second], 1), [rows, scales.shape[1], -1]);
    return reshape(mul(codes, reshape(scales, [rows, -1, 1])), [rows, width]);
  });

/** What of a stored float keeps it exactly. */
const exactly = { BF16: "bf16", F16: "f16" } as const;

/** The words that a tensor is kept in; undefined where it stays in float32. */
function wordsFor(
  { dtype }: HostTensor,
  rows: RowShape,
  asked: BasePacking,
): "bf16" | "f16" | "int8" | undefined {
  if (asked === "f32" || !isPacked(rows)) return undefined;
  if (asked === "int8") return "int8";
  return dtype === "BF16" || dtype === "F16" ? exactly[dtype] : undefined;
}

/** Puts some rows of a base's tensor on the device. @param shape that they have on it */
export function holdBase(
  base: HostTensor,
  values: Float32Array,
  { rows, shape }: { readonly rows: RowShape; readonly shape: number[] },
  asked: BasePacking,
): HeldBase {
  if (asked === "int4" && isPacked(rows)) {
    const { bytes, scales, groups } = packNibbles(values, rows);
    const narrow = { rows: rows.rows, width: rows.width / 2 };
    const words = uploadDeltas([bytesAsWords(bytes, narrow)], [0], narrow);
    return { packing: "int4", shape, words, scales: tensor2d(scales, [rows.rows, groups]) };
  }
  const packing = wordsFor(base, rows, asked);
  if (packing)
    return { packing: "words", shape, words: uploadDeltas([packRows(values, rows, packing)], [0], rows) };
  return { packing: "f32", tensor: tensor(values, shape, "float32") };
}

/** Rows of packed words. */
function wordRows(words: Deltas, ids: Int32Array): Deltas {
  const pick = (all: Tensor) => gather(all, tensor1d(ids, "int32"), 1);
  const rows = { ...words, rows: ids.length };
  if (rows.packing === "sparse") throw new TypeError("a base is never trimmed");
  if (rows.packing === "int8")
    return { ...rows, data: pick(rows.data), scales: pick(rows.scales) as Tensor2D };
  return { ...rows, data: pick(rows.data) };
}

/** A base's tensor as float32, or some rows of it, [ids, width]. The caller disposes. */
export const baseValues = (held: HeldBase, ids?: Int32Array): Tensor =>
  tidy(() => {
    if (held.packing === "f32")
      return ids ? gather(held.tensor, tensor1d(ids, "int32")) : held.tensor.clone();
    // WebGPU's own gather hands whole numbers through float32, which has not all of them.
    if (ids && getBackend() === "webgpu") return gather(baseValues(held), tensor1d(ids, "int32"));
    const words = ids ? wordRows(held.words, ids) : held.words;
    const outShape = ids ? [ids.length, -1] : [...held.shape];
    if (held.packing === "words") return reshape(unpackedRows(words), outShape);
    const scales = ids ? gather(held.scales, tensor1d(ids, "int32")) : held.scales;
    return reshape(unpackNibbles(words, scales, [words.rows, 2 * words.width]), outShape);
  });

export function disposeBase(held: HeldBase): void {
  if (held.packing === "f32") dispose(held.tensor);
  else disposeDeltas(held.words);
  if (held.packing === "int4") dispose(held.scales);
}

/** Σ‖θ‖² and Σ‖θ − packed θ‖² of a base's tensor. */
export function baseEnergy(base: HostTensor, asked: BasePacking) {
  const values = toFloat32(base);
  const rows = rowShape(base.shape, values.length);
  let [norm, error] = [0, 0];
  for (const value of values) norm += value * value;
  if (!isPacked(rows) || asked === "f32" || asked === "file") return { norm, error };
  const back =
    asked === "int8" ? unpackRows(packRows(values, rows, "int8"), rows) : fromNibbles(values, rows);
  for (let i = 0; i < values.length; i++) error += (f32(values, i) - f32(back, i)) ** 2;
  return { norm, error };
}

/** Numbers as four bits keep them. */
function fromNibbles(values: Float32Array, rows: RowShape): Float32Array {
  const { bytes, scales, groups } = packNibbles(values, rows);
  const [half, size] = [rows.width / 2, rows.width / groups];
  return values.map((_, n) => {
    const [r, i] = [Math.floor(n / rows.width), n % rows.width];
    const byte = f32(bytes, r * half + (i % half));
    const second = Math.floor(byte / 16);
    const code = i < half ? byte - 16 * second - 8 : second;
    return code * f32(scales, r * groups + Math.floor(i / size));
  });
}
