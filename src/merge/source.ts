import { rowCount, type Member, type RowRun } from "../checkpoint/family.js";
import { dtypeBytes, toFloat32, type HostTensor } from "../tensor/dtype.js";
import { joined } from "../tensor/joined.js";
import { packRows, sliceRows, type PackedRows, type Packing } from "./packing.js";

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

/** A tensor that the model reads, as a merge sees it. */
export interface FamilyTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** The tensor as rows of its last axis; a vector is one row. */
  readonly rows: number;
  readonly width: number;
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

/** A column's task vector over some rows, read from its files into `out` (zeros so far). float32 throughout. */
async function deltaRows(
  column: Column,
  { name, width }: FamilyTensor,
  runs: readonly RowRun[],
  base: Promise<Float32Array>,
  makeOut: () => Float32Array,
): Promise<Float32Array> {
  const reading = column.terms.map(({ member }) => member.rows(name, runs, width));
  const [from, ...parts] = await Promise.all([base, ...reading]);
  const [first] = column.terms;
  const out = makeOut();
  if (parts.length === 1 && first!.coefficient(name) === 1) return subtract(parts[0]!, from, out);
  for (const [t, values] of parts.entries()) {
    const c = column.terms[t]!.coefficient(name);
    for (let i = 0; i < out.length; i++) out[i]! += c * Math.fround(values[i]! - from[i]!);
  }
  return out;
}

export function subtract(
  values: Float32Array,
  base: Float32Array,
  out: Float32Array = new Float32Array(values.length),
): Float32Array {
  for (let i = 0; i < out.length; i++) out[i] = values[i]! - base[i]!;
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
    const rows = rowCount(runs);
    const size = rows * tensor.width;
    const baseRows = base.rows(tensor.name, runs, tensor.width);
    // Side by side from the start, as the device wants them: float32 needs no other copy.
    const stack = new Float32Array(size * tensor.experts.length);
    const vectors = await Promise.all(
      tensor.experts.map(async (column, i) =>
        packRows(
          await deltaRows(columns[column]!, tensor, runs, baseRows, () =>
            stack.subarray(i * size, (i + 1) * size),
          ),
          rows,
          tensor.width,
          packing,
          thresholds.get(tensor.name)?.[i],
        ),
      ),
    );
    return { base: await baseRows, vectors };
  };
}

/** Rows out of host memory: the base as its file has it, the task vectors packed. */
export function hostRows(
  kept: ReadonlyMap<string, { readonly base: HostTensor; readonly vectors: readonly PackedRows[] }>,
): ReadRows {
  return async ({ name, rows, width }, runs) => {
    const { base, vectors } = kept.get(name)!;
    const rowBytes = width * dtypeBytes[base.dtype];
    const bytes =
      runs.length === 1
        ? base.bytes.subarray(runs[0]![0] * rowBytes, runs[0]![1] * rowBytes)
        : joined(runs.map(([from, to]) => base.bytes.subarray(from * rowBytes, to * rowBytes)));
    return {
      base: toFloat32({ ...base, bytes }),
      vectors: vectors.map((vector) => sliceRows(vector, runs, rows, width)),
    };
  };
}
