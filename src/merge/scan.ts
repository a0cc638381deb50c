import type { Member } from "../checkpoint/family.js";
import type { HostTensor } from "../tensor/dtype.js";
import { groupLayers, type Granularity, type Layer } from "./layers.js";
import { magnitudeThreshold } from "./magnitudes.js";
import { packRows, unpackRows, type PackedRows, type Packing } from "./packing.js";
import { subtract, type Column, type FamilyTensor } from "./source.js";

/** Energy of the task vectors, and of what packing took from it, summed over the experts. */
export interface PackingError {
  readonly layer: string;
  /** Σ‖τ‖² */
  readonly norm: number;
  /** Σ‖τ − packed τ‖² */
  readonly error: number;
}

/** What one reading of all files tells. */
export interface Scan {
  readonly layers: readonly Layer[];
  readonly tensors: ReadonlyMap<string, FamilyTensor>;
  /** Where a sparse packing trims: tensor → one magnitude a changed expert. */
  readonly thresholds: ReadonlyMap<string, readonly number[]>;
  /** One a layer; empty for float32, which loses nothing. */
  readonly packingErrors: readonly PackingError[];
}

export interface ScanOptions {
  /** Default: a row a tensor. */
  readonly granularity?: Granularity | undefined;
  /** Default: float32. */
  readonly packing?: Packing | undefined;
  /** The part of the entries that a sparse packing keeps. Default: all. */
  readonly density?: number | undefined;
  readonly onTensor?: ((done: number, of: number) => void) | undefined;
}

function sameBytes(a: Member, b: Member, name: string): boolean {
  const [one, other] = [a, b].map(({ actual, checkpoint }) =>
    actual.has(name) ? checkpoint.ref(actual.get(name)!) : undefined,
  );
  return (
    one !== undefined &&
    other !== undefined &&
    one.path === other.path &&
    one.start === other.start &&
    !one.adapted
  );
}

/** Whether a column changes a tensor, and its whole task vector there. */
async function wholeDelta(
  column: Column,
  name: string,
  base: { member: Member; values: Float32Array; stored: HostTensor },
): Promise<Float32Array | undefined> {
  let sum: Float32Array | undefined;
  for (const { member, coefficient } of column.terms) {
    // The base's own bytes: an adapter leaves most of a model alone.
    if (sameBytes(member, base.member, name)) continue;
    const { values, stored } = await member.weights(name);
    if (stored.dtype === base.stored.dtype && Buffer.compare(stored.bytes, base.stored.bytes) === 0) continue;
    const delta = subtract(values, base.values);
    const c = coefficient(name);
    if (c === 0 || delta.every((x) => x === 0)) continue;
    if (column.terms.length === 1 && c === 1) return delta;
    // The same arithmetic as where rows are read one part at a time (source.ts).
    sum ??= new Float32Array(delta.length);
    for (let i = 0; i < delta.length; i++) sum[i]! += c * delta[i]!;
  }
  return sum;
}

/**
 * Reads a family once, a tensor of one model at a time: who changes what, where a sparse packing trims, what packing
 * costs; every weight is found to be finite on the way. Host memory: five copies of the largest tensor, whatever the
 * number of experts, beside what `keep` holds on to.
 * @param keep gets each tensor as it is read: the base's bytes, the columns that change it and their
 *   packed task vectors
 */
export async function scanFamily(
  base: Member,
  columns: readonly Column[],
  names: readonly string[],
  { granularity = "tensor", packing = "f32", density = 1, onTensor }: ScanOptions,
  keep?: (name: string, base: HostTensor, experts: readonly number[], vectors: readonly PackedRows[]) => void,
): Promise<Scan> {
  const found: Omit<FamilyTensor, "row">[] = [];
  const thresholds = new Map<string, number[]>();
  const errors = new Map<string, { norm: number; error: number }>();
  for (const [n, name] of names.entries()) {
    const { values, shape, stored } = await base.weights(name);
    const width = shape.length > 1 ? shape.at(-1)! : values.length;
    const rows = values.length / width;
    const [experts, vectors, limits]: [number[], PackedRows[], number[]] = [[], [], []];
    const sums = { norm: 0, error: 0 };
    for (const [c, column] of columns.entries()) {
      const delta = await wholeDelta(column, name, { member: base, values, stored });
      if (!delta) continue;
      experts.push(c);
      const threshold = packing === "sparse" ? magnitudeThreshold(delta, density) : 0;
      if (packing === "sparse") limits.push(threshold);
      if (!keep && packing === "f32") continue;
      const packed = packRows(delta, rows, width, packing, threshold);
      if (keep) vectors.push(packed);
      if (packing === "f32") continue;
      const back = unpackRows(packed, rows, width, packing);
      for (let i = 0; i < delta.length; i++) {
        sums.norm += delta[i]! ** 2;
        sums.error += (delta[i]! - back[i]!) ** 2;
      }
    }
    found.push({ name, shape, rows, width, experts });
    if (limits.length) thresholds.set(name, limits);
    if (packing !== "f32" && experts.length) errors.set(name, sums);
    keep?.(name, stored, experts, vectors);
    onTensor?.(n + 1, names.length);
  }
  const layers = groupLayers(
    found.filter(({ experts }) => experts.length).map(({ name }) => name),
    granularity,
  );
  const rowByName = new Map(layers.flatMap((layer, row) => layer.names.map((name) => [name, row] as const)));
  return {
    layers,
    thresholds,
    tensors: new Map(
      found.map((tensor) => [tensor.name, { ...tensor, row: rowByName.get(tensor.name) ?? -1 }]),
    ),
    packingErrors:
      packing === "f32"
        ? []
        : layers.map(({ id, names: members }) => {
            const parts = members.map((name) => errors.get(name)!);
            return {
              layer: id,
              norm: parts.reduce((sum, { norm }) => sum + norm, 0),
              error: parts.reduce((sum, { error }) => sum + error, 0),
            };
          }),
  };
}
