import { f32, lookUp } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { type HostTensor, rowShape } from "../tensor/dtype.js";
import { groupLayers, type Granularity, type Layer } from "./table.js";
import { magnitudeThreshold } from "./magnitudes.js";
import { packRows, unpackRows, type PackedRows, type Packing } from "./packing.js";
import { subtract, type Column, type ColumnFamily, type FamilyTensor } from "./source.js";

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
  const refIn = ({ actual, checkpoint }: Member) => {
    const stored = actual.get(name);
    return stored === undefined ? undefined : checkpoint.ref(stored);
  };
  const [one, other] = [refIn(a), refIn(b)];
  return (
    one !== undefined &&
    other !== undefined &&
    one.path === other.path &&
    one.start === other.start &&
    !one.adapted &&
    !one.moved
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
    for (let i = 0; i < delta.length; i++) sum[i] = f32(sum, i) + c * f32(delta, i);
  }
  return sum;
}

/** A tensor as it is read: the base's bytes, the columns that change it and their packed task vectors. */
export interface ScannedTensor {
  readonly name: string;
  readonly base: HostTensor;
  readonly experts: readonly number[];
  readonly vectors: readonly PackedRows[];
}

type Energy = Pick<PackingError, "norm" | "error">;

/** Energies with those of one more task vector added. */
function addEnergy({ norm, error }: Energy, delta: Float32Array, back: Float32Array): Energy {
  let [whole, lost] = [norm, error];
  for (let i = 0; i < delta.length; i++) {
    whole += f32(delta, i) ** 2;
    lost += (f32(delta, i) - f32(back, i)) ** 2;
  }
  return { norm: whole, error: lost };
}

/** What a tensor's scan finds, beside the numbers that are held on to. */
interface TensorScan {
  readonly tensor: Omit<FamilyTensor, "row">;
  /** Where a sparse packing trims: one magnitude a changed expert. */
  readonly limits: readonly number[];
  readonly energy: Energy;
}

/** @param isKept whether the packed task vectors are wanted */
async function scanTensor(
  { base, columns }: ColumnFamily,
  name: string,
  { packing = "f32", density = 1 }: ScanOptions,
  isKept: boolean,
): Promise<TensorScan & { readonly kept: ScannedTensor }> {
  const { values, shape, stored } = await base.weights(name);
  const rows = rowShape(shape, values.length);
  const [experts, vectors, limits]: [number[], PackedRows[], number[]] = [[], [], []];
  let energy: Energy = { norm: 0, error: 0 };
  for (const [c, column] of columns.entries()) {
    const delta = await wholeDelta(column, name, { member: base, values, stored });
    if (!delta) continue;
    experts.push(c);
    if (packing === "sparse") limits.push(magnitudeThreshold(delta, density));
    if (!isKept && packing === "f32") continue;
    const packed = packRows(delta, rows, packing, limits.at(-1));
    if (isKept) vectors.push(packed);
    if (packing !== "f32") energy = addEnergy(energy, delta, unpackRows(packed, rows));
  }
  return {
    tensor: { name, shape, ...rows, experts },
    limits,
    energy,
    kept: { name, base: stored, experts, vectors },
  };
}

/** The energies of each layer's tensors, added up. */
function errorsOf(layers: readonly Layer[], scans: readonly TensorScan[]): PackingError[] {
  const byName = new Map(scans.map(({ tensor, energy }) => [tensor.name, energy]));
  return layers.map(({ id, names }) => {
    const parts = names.map((name) => lookUp(byName, name));
    return {
      layer: id,
      norm: parts.reduce((sum, { norm }) => sum + norm, 0),
      error: parts.reduce((sum, { error }) => sum + error, 0),
    };
  });
}

/**
 * Reads a family once, a tensor of one model at a time: who changes what, where a sparse packing trims, what packing
 * costs; every weight is found to be finite on the way. Host memory: five copies of the largest tensor, whatever the
 * number of experts, beside what `keep` holds on to.
 * @param keep gets each tensor as it is read
 */
export async function scanFamily(
  family: ColumnFamily,
  names: readonly string[],
  options: ScanOptions,
  keep?: (tensor: ScannedTensor) => void,
): Promise<Scan> {
  const { granularity = "tensor", packing = "f32", onTensor } = options;
  const scans: TensorScan[] = [];
  for (const [n, name] of names.entries()) {
    const { kept, ...scan } = await scanTensor(family, name, options, keep !== undefined);
    scans.push(scan);
    keep?.(kept);
    onTensor?.(n + 1, names.length);
  }
  const changed = scans.filter(({ tensor }) => tensor.experts.length > 0);
  const layers = groupLayers(
    changed.map(({ tensor }) => tensor.name),
    granularity,
  );
  const rowByName = new Map(layers.flatMap((layer, row) => layer.names.map((name) => [name, row] as const)));
  return {
    layers,
    thresholds: new Map(
      scans.filter(({ limits }) => limits.length).map(({ tensor, limits }) => [tensor.name, limits]),
    ),
    tensors: new Map(
      scans.map(({ tensor }) => [tensor.name, { ...tensor, row: rowByName.get(tensor.name) ?? -1 }]),
    ),
    packingErrors: packing === "f32" ? [] : errorsOf(layers, changed),
  };
}
