import { engine, tensor } from "@tensorflow/tfjs-core";
import type { RowRun } from "../checkpoint/family.js";
import { toFloat32, rowShape } from "../tensor/dtype.js";
import { disposeDeltas, uploadDeltas } from "./op.js";
import type { Layer } from "./table.js";
import { sliceRows, type Packing } from "./packing.js";
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
  /** Brings tensors to the device one after the other, in parts of at most {@link partBytes} of task vectors. */
  stream(requests: readonly Request[]): AsyncGenerator<StreamedPart, void, void>;
  /** The same family read from its files each time, in float32: holds nothing. */
  fromFiles(): TaskVectors;
  dispose(): void;
}

export interface VectorOptions extends ScanOptions {
  /** Default: the device. */
  readonly residency?: Residency | undefined;
  /** Tensors that are only ever read by rows. */
  readonly tables: ReadonlySet<string>;
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
    base.dispose();
    if (deltas) disposeDeltas(deltas);
  }
}

/** Puts a tensor on the device, in as many pieces as the engine's limit asks for. */
function toDevice({ base, experts, vectors }: ScannedTensor): Resident[] {
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
      held.push({ run, base: tensor(values.subarray(from * width, to * width), shape, "float32"), deltas });
    }
    return held;
  } catch (error) {
    disposePieces(held);
    throw error;
  }
}

/** How task vectors are held, and where what is not on the device is read from. */
interface Holding {
  readonly residency: Residency;
  readonly packing: Packing;
  readonly resident: ReadonlyMap<string, readonly Resident[]>;
  readonly read: ReadRows;
}

function assemble(family: ColumnFamily, scan: Scan, holding: Holding): TaskVectors {
  const { residency, packing, resident, read } = holding;
  const read32 = () => fileRows(family.base, family.columns, "f32", new Map());
  return {
    experts: family.columns.map(({ label }) => label),
    layers: scan.layers,
    tensors: scan.tensors,
    residency,
    packing,
    packingErrors: scan.packingErrors,
    stream: streamOf(scan.tensors, resident, read),
    fromFiles() {
      const exact: Holding = { residency: "disk", packing: "f32", resident: new Map(), read: read32() };
      return assemble(family, { ...scan, packingErrors: [] }, exact);
    },
    dispose: () => [...resident.values()].forEach(disposePieces),
  };
}

/**
 * Reads a family once (scanFamily) and leaves its task vectors where `residency` says. Held afterwards:
 * - device: 4 bytes an entry of the base and the packing's bytes an entry and changed expert, on the
 *   device; but tables that an expert changed stay in host memory, and only the rows that are asked for
 *   travel;
 * - host: the base as its file has it and the packed task vectors, in host memory;
 * - disk: nothing but open files.
 * @param names canonical names, all present and of one shape (checked before)
 */
export async function loadTaskVectors(
  family: ColumnFamily,
  names: readonly string[],
  options: VectorOptions,
): Promise<TaskVectors> {
  const { residency = "device", packing = "f32", tables } = options;
  const resident = new Map<string, Resident[]>();
  const kept = new Map<string, ScannedTensor>();
  try {
    if (residency === "disk") {
      const scan = await scanFamily(family, names, options);
      const read = fileRows(family.base, family.columns, packing, scan.thresholds);
      return assemble(family, scan, { residency, packing, resident, read });
    }
    const scan = await scanFamily(family, names, options, (scanned) => {
      const { name, vectors } = scanned;
      if (residency === "host" || (tables.has(name) && vectors.length)) kept.set(name, scanned);
      else resident.set(name, toDevice(scanned));
    });
    return assemble(family, scan, { residency, packing, resident, read: hostRows(kept) });
  } catch (error) {
    [...resident.values()].forEach(disposePieces);
    throw error;
  }
}
