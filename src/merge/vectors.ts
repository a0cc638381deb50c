import { engine } from "@tensorflow/tfjs-core";
import type { RowRun } from "../checkpoint/family.js";
import { toFloat32, rowShape } from "../tensor/dtype.js";
import { disposeDeltas, uploadDeltas } from "./op.js";
import type { Layer } from "./table.js";
import { baseEnergy, disposeBase, holdBase } from "./packed-base.js";
import { sliceRows, type BasePacking, type Packing } from "./packing.js";
import type { Residency } from "./residency.js";
import { scanFamily, type PackingError, type Scan, type ScanOptions, type ScannedTensor } from "./scan.js";
import { fileRows, hostRows, type ColumnFamily, type FamilyTensor, type ReadRows } from "./source.js";
import { streamOf, type Request, type Resident, type StreamedPart } from "./stream.js";

/**
 * Bytes that one tensor may have on the running engine. A WebGPU adapter binds so much to a program at
 * once (128 MiB is all that WebGPU promises; backend/webgpu.ts says what the adapter has); the other
 * engines have no such limit.
 */
export function tensorLimit(): number {
  const backend: object | null = engine().backend;
  if (backend === null || !("tensorLimit" in backend)) return Infinity;
  const { tensorLimit: limit } = backend;
  if (typeof limit !== "number") return Infinity;
  return limit;
}

/**
 * Rows of a tensor that are held together on the device: as many as let the stacked task vectors of all
 * its experts, as float32, stay within the engine's limit.
 */
export function rowsTogether({
  rows,
  width,
  experts,
}: {
  rows: number;
  width: number;
  experts: readonly number[];
}): number {
  return Math.max(1, Math.min(rows, Math.floor(tensorLimit() / (4 * width * Math.max(1, experts.length)))));
}

/** The frozen half of a merge: base and task vectors, wherever they live. */
export interface TaskVectors {
  /** The columns of the table. */
  readonly experts: readonly string[];
  readonly layers: readonly Layer[];
  readonly tensors: ReadonlyMap<string, FamilyTensor>;
  readonly residency: Residency;
  readonly packing: Packing;
  readonly packingErrors: readonly PackingError[];
  /** How the base is kept, and what that is off by: √(Σ‖θ − packed θ‖² / Σ‖θ‖²). */
  readonly basePacking: BasePacking;
  readonly baseError: number;
  /** Brings tensors to the device one after the other, in parts of at most {@link partBytes} of task vectors. */
  stream(requests: readonly Request[]): AsyncGenerator<StreamedPart, void, void>;
  /** The same family read from its files each time, in float32: holds nothing. */
  fromFiles(): TaskVectors;
  dispose(): void;
}

export interface VectorOptions extends ScanOptions {
  /** Default: the device. */
  readonly residency?: Residency | undefined;
  /** How the base is kept where it lives on the device. Default: float32. */
  readonly basePacking?: BasePacking | undefined;
  /** Tensors that are only ever read by rows. */
  readonly tables: ReadonlySet<string>;
  /** Those live on the device too, where task vectors do (but for sparse ones). */
  readonly holdsTables?: boolean | undefined;
}

/** The rows of a tensor, in pieces of {@link rowsTogether}: what the device holds together. */
export function piecesOf(tensor: Pick<FamilyTensor, "rows" | "width" | "experts">): RowRun[] {
  const most = rowsTogether(tensor);
  return Array.from(
    { length: Math.ceil(tensor.rows / most) },
    (_, i) => [i * most, Math.min(tensor.rows, (i + 1) * most)] as const,
  );
}

function disposePieces(pieces: readonly Resident[]): void {
  for (const { base, deltas } of pieces) {
    disposeBase(base);
    if (deltas) disposeDeltas(deltas);
  }
}

/** Puts a tensor on the device, in as many pieces as the engine's limit asks for. */
function toDevice({ base, experts, vectors }: ScannedTensor, basePacking: BasePacking): Resident[] {
  const values = toFloat32(base);
  const all = rowShape(base.shape, values.length);
  const { width } = all;
  const runs = piecesOf({ ...all, experts });
  const held: Resident[] = [];
  try {
    for (const run of runs) {
      const [from, to] = run;
      const rows = to - from;
      const shape = runs.length === 1 ? [...base.shape] : [rows, width];
      const some = vectors.map((vector) => sliceRows(vector, [run], all));
      const deltas = some.length ? uploadDeltas(some, experts, { rows, width }) : undefined;
      const own = values.subarray(from * width, to * width);
      held.push({ run, base: holdBase(base, own, { rows: { rows, width }, shape }, basePacking), deltas });
    }
    return held;
  } catch (error) {
    disposePieces(held);
    throw error;
  }
}

/** How task vectors are held, and where what is not on the device is read from. */
interface Holding {
  readonly basePacking: BasePacking;
  readonly baseError: number;
  readonly residency: Residency;
  readonly packing: Packing;
  readonly resident: ReadonlyMap<string, readonly Resident[]>;
  readonly read: ReadRows;
}

const plainBase = { basePacking: "f32", baseError: 0 } as const;

function assemble(family: ColumnFamily, scan: Scan, holding: Holding): TaskVectors {
  const { residency, packing, resident, read, basePacking, baseError } = holding;
  const read32 = () => fileRows(family.base, family.columns, "f32", new Map());
  return {
    experts: family.columns.map(({ label }) => label),
    layers: scan.layers,
    tensors: scan.tensors,
    residency,
    packing,
    packingErrors: scan.packingErrors,
    basePacking,
    baseError,
    stream: streamOf(scan.tensors, resident, read),
    fromFiles() {
      const read = read32();
      const exact: Holding = { ...plainBase, residency: "disk", packing: "f32", resident: new Map(), read };
      return assemble(family, { ...scan, packingErrors: [] }, exact);
    },
    dispose: () => [...resident.values()].forEach(disposePieces),
  };
}

/**
 * Reads a family once (scanFamily) and leaves its task vectors where `residency` says. Held afterwards:
 * - device: 4 bytes an entry of the base (or what `basePacking` takes) and the packing's bytes an entry and changed
 *   expert, on the device; but tables that an expert changed stay in host memory, and only the rows that are asked for
 *   travel, unless `holdsTables`;
 * - host: the base as its file has it and the packed task vectors, in host memory;
 * - disk: nothing but open files.
 * @param names canonical names, all present and of one shape (checked before)
 */
export async function loadTaskVectors(
  family: ColumnFamily,
  names: readonly string[],
  options: VectorOptions,
): Promise<TaskVectors> {
  const { residency = "device", packing = "f32", basePacking = "f32", tables } = options;
  const areTablesHeld = options.holdsTables === true && packing !== "sparse";
  const resident = new Map<string, Resident[]>();
  const kept = new Map<string, ScannedTensor>();
  let [norm, error] = [0, 0];
  try {
    if (residency === "disk") {
      const scan = await scanFamily(family, names, options);
      const read = fileRows(family.base, family.columns, packing, scan.thresholds);
      return assemble(family, scan, { ...plainBase, residency, packing, resident, read });
    }
    const scan = await scanFamily(family, names, options, (scanned) => {
      const { name, vectors } = scanned;
      const isApart = tables.has(name) && vectors.length > 0 && !areTablesHeld;
      if (residency === "host" || isApart) kept.set(name, scanned);
      else {
        resident.set(name, toDevice(scanned, basePacking));
        const energy = baseEnergy(scanned.base, basePacking);
        norm += energy.norm;
        error += energy.error;
      }
    });
    const baseError = error > 0 ? Math.sqrt(error / norm) : 0;
    const holding: Holding = { residency, packing, resident, read: hostRows(kept), basePacking, baseError };
    return assemble(family, scan, holding);
  } catch (error) {
    [...resident.values()].forEach(disposePieces);
    throw error;
  }
}
