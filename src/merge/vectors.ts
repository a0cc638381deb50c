import { gather, tensor, tensor1d, tensor2d, tidy, type Tensor } from "@tensorflow/tfjs-core";
import { rowCount, runsOf, type Member, type RowRun } from "../checkpoint/family.js";
import { toFloat32, type HostTensor } from "../tensor/dtype.js";
import { disposeDeltas, uploadDeltas, type Deltas } from "./deltas.js";
import type { Layer } from "./layers.js";
import { rowsTogether } from "./limit.js";
import { sliceRows, type PackedRows, type Packing } from "./packing.js";
import { partBytes, type Residency } from "./residency.js";
import { scanFamily, type PackingError, type Scan, type ScanOptions } from "./scan.js";
import { fileRows, hostRows, type Column, type FamilyTensor, type ReadRows } from "./source.js";

/** A tensor that is asked for, whole or some rows of it. */
export interface Request {
  readonly name: string;
  /** These rows, each once, rising. */
  readonly ids?: Int32Array | undefined;
  /** These rows: one of the pieces that {@link piecesOf} cuts a tensor into. */
  readonly run?: RowRun | undefined;
}

/**
 * Some rows of a requested tensor on the device. It is the vectors' own, and gone when the next part is
 * asked for.
 */
export interface Part {
  /** The request's place in the list. */
  readonly request: number;
  readonly tensor: FamilyTensor;
  /** Where the rows stand among the requested ones. */
  readonly from: number;
  readonly rows: number;
  /** Whether these are all the rows that were asked for. */
  readonly whole: boolean;
  readonly base: Tensor;
  readonly deltas: Deltas | undefined;
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
  stream(requests: readonly Request[]): AsyncGenerator<Part, void, void>;
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

/** A family as a merge takes it. */
export interface ColumnFamily {
  readonly base: Member;
  readonly columns: readonly Column[];
}

/** How many parts are read ahead of the one in use. */
const readAhead = 3;

/** Cuts runs of rows into parts of at most `most` rows. */
export function cutRuns(runs: readonly RowRun[], most: number): RowRun[][] {
  const parts: RowRun[][] = [];
  let room = 0;
  for (const [from, to] of runs) {
    for (let at = from; at < to;) {
      if (room === 0) {
        parts.push([]);
        room = most;
      }
      const end = Math.min(to, at + room);
      parts.at(-1)!.push([at, end]);
      room -= end - at;
      at = end;
    }
  }
  return parts;
}

/** The rows of a tensor, in pieces of {@link rowsTogether}: what the device holds together. */
export function piecesOf(tensor: Pick<FamilyTensor, "rows" | "width" | "experts">): RowRun[] {
  const most = rowsTogether(tensor);
  return Array.from(
    { length: Math.ceil(tensor.rows / most) },
    (_, i) => [i * most, Math.min(tensor.rows, (i + 1) * most)] as const,
  );
}

/** A piece of a tensor on the device. */
interface Resident {
  readonly run: RowRun;
  readonly base: Tensor;
  readonly deltas: Deltas | undefined;
}

/** The pieces that a request is about, each with its rows: of a table, those that were asked for. */
function heldParts(
  held: readonly Resident[],
  { ids, run }: Request,
): { resident: Resident; local: Int32Array | undefined; rows: number }[] {
  if (!ids) {
    const wanted = held.filter(
      ({ run: [from, to] }) => run === undefined || (from >= run[0] && to <= run[1]),
    );
    return wanted.map((resident) => ({
      resident,
      local: undefined,
      rows: resident.run[1] - resident.run[0],
    }));
  }
  const parts = held.map((resident) => {
    const [from, to] = resident.run;
    const local = ids.filter((id) => id >= from && id < to).map((id) => id - from);
    return { resident, local, rows: local.length };
  });
  return parts.filter(({ rows }) => rows > 0);
}

/** A part before its rows are there. */
interface Piece extends Pick<Part, "request" | "tensor" | "from" | "whole"> {
  readonly runs: readonly RowRun[];
  readonly rows: number;
  readonly held: Resident | undefined;
  /** Of a held table, the rows of the piece that were asked for. */
  readonly local: Int32Array | undefined;
}

/** A request as the pieces that bring it to the device. */
function piecesOfRequest(
  asked: Request,
  request: number,
  tensor: FamilyTensor,
  held: readonly Resident[] | undefined,
): Piece[] {
  const parts: Pick<Piece, "runs" | "rows" | "held" | "local">[] = held
    ? heldParts(held, asked).map(({ resident, local, rows }) => ({ runs: [], rows, held: resident, local }))
    : cutRuns(
        asked.ids ? runsOf(asked.ids) : [asked.run ?? [0, tensor.rows]],
        Math.max(1, Math.floor(partBytes / (4 * tensor.width * Math.max(1, tensor.experts.length)))),
      ).map((runs) => ({ runs, rows: rowCount(runs), held: undefined, local: undefined }));
  let from = 0;
  return parts.map((part) => {
    const piece = { ...part, request, tensor, from, whole: parts.length === 1 };
    from += part.rows;
    return piece;
  });
}

function streamOf(
  tensors: ReadonlyMap<string, FamilyTensor>,
  resident: ReadonlyMap<string, readonly Resident[]>,
  read: ReadRows,
  packing: Packing,
): TaskVectors["stream"] {
  return async function* stream(requests) {
    const work = requests.flatMap((asked, request) => {
      const tensor = tensors.get(asked.name);
      if (!tensor) throw new Error(`the model asks for "${asked.name}", which was not loaded`);
      return piecesOfRequest(asked, request, tensor, resident.get(asked.name));
    });
    const ahead = new Map<number, ReturnType<ReadRows>>();
    for (const [i, { held, local, runs: _, ...part }] of work.entries()) {
      if (held) {
        // Of a table on the device (one that nobody changed) only the rows that were asked for are taken.
        const base = local ? tidy(() => gather(held.base, tensor1d(local, "int32"))) : held.base;
        try {
          yield { ...part, base, deltas: held.deltas };
        } finally {
          if (local) base.dispose();
        }
        continue;
      }
      for (let j = i; j < Math.min(work.length, i + 1 + readAhead); j++) {
        const next = work[j]!;
        if (next.held || ahead.has(j)) continue;
        const reading = read(next.tensor, next.runs);
        // It is awaited when its turn comes; until then a failure is not an unhandled one.
        reading.catch(() => {});
        ahead.set(j, reading);
      }
      const host = await ahead.get(i)!;
      ahead.delete(i);
      const { width, experts } = part.tensor;
      const { rows } = part;
      const base: Tensor = tensor2d(host.base, [rows, width]);
      const deltas = experts.length ? uploadDeltas(host.vectors, experts, rows, width, packing) : undefined;
      try {
        yield { ...part, base, deltas };
      } finally {
        base.dispose();
        if (deltas) disposeDeltas(deltas);
      }
    }
  };
}

function disposePieces(pieces: readonly Resident[]): void {
  for (const { base, deltas } of pieces) {
    base.dispose();
    if (deltas) disposeDeltas(deltas);
  }
}

/** Puts a tensor on the device, in as many pieces as the engine's limit asks for. */
function toDevice(
  base: HostTensor,
  experts: readonly number[],
  vectors: readonly PackedRows[],
  packing: Packing,
): Resident[] {
  const values = toFloat32(base);
  const width = base.shape.length > 1 ? base.shape.at(-1)! : values.length;
  const rows = values.length / width;
  const runs = piecesOf({ rows, width, experts });
  const held: Resident[] = [];
  try {
    for (const run of runs) {
      const [from, to] = run;
      const shape = runs.length === 1 ? [...base.shape] : [to - from, width];
      const some = vectors.map((vector) => sliceRows(vector, [run], rows, width));
      const deltas = vectors.length ? uploadDeltas(some, experts, to - from, width, packing) : undefined;
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
    stream: streamOf(scan.tensors, resident, read, packing),
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
  const kept = new Map<string, { base: HostTensor; vectors: readonly PackedRows[] }>();
  try {
    const keep = (
      name: string,
      base: HostTensor,
      experts: readonly number[],
      vectors: readonly PackedRows[],
    ): void => {
      if (residency === "host" || (tables.has(name) && vectors.length)) kept.set(name, { base, vectors });
      else resident.set(name, toDevice(base, experts, vectors, packing));
    };
    const scan = await scanFamily(
      family.base,
      family.columns,
      names,
      options,
      residency === "disk" ? undefined : keep,
    );
    const read =
      residency === "disk" ? fileRows(family.base, family.columns, packing, scan.thresholds) : hostRows(kept);
    return assemble(family, scan, { residency, packing, resident, read });
  } catch (error) {
    [...resident.values()].forEach(disposePieces);
    throw error;
  }
}
