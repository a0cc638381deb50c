import { at, f32, lookUp } from "../at.js";
import { rowCount, type Member, type RowRun } from "../checkpoint/family.js";
import { dtypeBytes, toFloat32, type HostTensor, type RowShape } from "../tensor/dtype.js";
import { packRows, sliceRows, oneOrJoined, type PackedRows, type Packing } from "./packing.js";

/**
 * A column of the coefficient table: one fine-tuned model, or a merge of several that is given by its
 * coefficients.
 */
export interface Column {
  readonly label: string;
  /** Its task vector is Σ coefficient(name) · τ of these, tensor by tensor. */
  readonly terms: readonly { readonly member: Member; coefficient(name: string): number }[];
}

/** A model as a column of its own. */
export const columnOf = (member: Member): Column => ({
  label: member.label,
  terms: [{ member, coefficient: () => 1 }],
});

/** A family as a merge takes it. */
export interface ColumnFamily {
  readonly base: Member;
  readonly columns: readonly Column[];
}

/** A tensor that the model reads, as a merge sees it: rows of its last axis; a vector is one row. */
export interface FamilyTensor extends RowShape {
  readonly name: string;
  readonly shape: readonly number[];
  /** The columns that change it, rising; the others take no part in it. None: it is the base's own. */
  readonly experts: readonly number[];
  /** Its layer's row in the table; −1 where nobody changes it. */
  readonly row: number;
}

/** Some rows of a tensor in host memory: the base's, and the packed task vectors of the experts that changed it. */
export interface HostRows {
  readonly base: Float32Array;
  readonly vectors: readonly PackedRows[];
}

/** Where rows come from: the files themselves, or a copy in host memory. */
export type ReadRows = (tensor: FamilyTensor, runs: readonly RowRun[]) => Promise<HostRows>;

/** Rows of a tensor that are read from the files of a family. */
interface Reading {
  readonly tensor: FamilyTensor;
  readonly runs: readonly RowRun[];
  /** The base's. */
  readonly base: Promise<Float32Array>;
}

/** A column's task vector over some rows, read from its files into `out` (zeros so far). float32 throughout. */
async function deltaRows(
  column: Column,
  { tensor: { name, width }, runs, base }: Reading,
  out: Float32Array,
): Promise<Float32Array> {
  const reading = column.terms.map(async (term) => ({
    values: await term.member.rows(name, runs, width),
    c: term.coefficient(name),
  }));
  const [from, ...terms] = await Promise.all([base, ...reading]);
  const [first] = terms;
  if (first && terms.length === 1 && first.c === 1) return subtract(first.values, from, out);
  for (const { values, c } of terms)
    for (let i = 0; i < out.length; i++)
      out[i] = f32(out, i) + c * Math.fround(f32(values, i) - f32(from, i));
  return out;
}

export function subtract(
  values: Float32Array,
  base: Float32Array,
  out: Float32Array = new Float32Array(values.length),
): Float32Array {
  for (let i = 0; i < out.length; i++) out[i] = f32(values, i) - f32(base, i);
  return out;
}

/**
 * Rows straight from the files, by byte range. `thresholds` trims a sparse packing: tensor → one number
 * a changed expert.
 */
export function fileRows(
  base: Member,
  columns: readonly Column[],
  packing: Packing,
  thresholds: ReadonlyMap<string, readonly number[]>,
): ReadRows {
  return async (tensor, runs) => {
    const { name, width, experts } = tensor;
    const rows = rowCount(runs);
    const size = rows * width;
    const reading: Reading = { tensor, runs, base: base.rows(name, runs, width) };
    // Side by side from the start, as the device wants them: float32 needs no other copy.
    const stack = new Float32Array(size * experts.length);
    const vectors = await Promise.all(
      experts.map(async (column, i) => {
        const out = stack.subarray(i * size, (i + 1) * size);
        const delta = await deltaRows(at(columns, column), reading, out);
        return packRows(delta, { rows, width }, packing, thresholds.get(name)?.[i]);
      }),
    );
    return { base: await reading.base, vectors };
  };
}

/** Rows out of host memory: the base as its file has it, the task vectors packed. */
export function hostRows(
  kept: ReadonlyMap<string, { readonly base: HostTensor; readonly vectors: readonly PackedRows[] }>,
): ReadRows {
  return async (tensor, runs) => {
    const { base, vectors } = lookUp(kept, tensor.name);
    const rowBytes = tensor.width * dtypeBytes[base.dtype];
    const pieces = runs.map(([from, to]) => base.bytes.subarray(from * rowBytes, to * rowBytes));
    return {
      base: toFloat32({ ...base, bytes: oneOrJoined(pieces) }),
      vectors: vectors.map((vector) => sliceRows(vector, runs, tensor)),
    };
  };
}
