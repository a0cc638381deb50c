import { tensor1d, tensor2d, type Tensor } from "@tensorflow/tfjs-core";
import { lookUp } from "../at.js";
import { rowCount, runsOf, type RowRun } from "../checkpoint/family.js";
import { deltaRows, disposeDeltas, uploadDeltas, type Deltas } from "./op.js";
import { baseValues, type HeldBase } from "./packed-base.js";
import { partBytes } from "./residency.js";
import type { FamilyTensor, ReadRows } from "./source.js";

/** A tensor that is asked for, whole or some rows of it. */
export interface Request {
  readonly name: string;
  /** These rows, each once, rising. */
  readonly ids?: Int32Array | undefined;
  /** These rows: one of the pieces that a tensor is cut into (vectors.ts). */
  readonly run?: RowRun | undefined;
}

/**
 * Some rows of a requested tensor on the device. It is the vectors' own, and gone when the next part is
 * asked for.
 */
export interface StreamedPart {
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

/** A piece of a tensor on the device. */
export interface Resident {
  readonly run: RowRun;
  readonly base: HeldBase;
  readonly deltas: Deltas | undefined;
}

/** How many parts are read ahead of the one in use. */
const readAhead = 3;

/** Cuts runs of rows into parts of at most `most` rows. */
export function cutRuns(runs: readonly RowRun[], most: number): RowRun[][] {
  const parts: RowRun[][] = [];
  let [part, room]: [RowRun[], number] = [[], 0];
  for (const [from, to] of runs) {
    for (let start = from; start < to;) {
      if (room === 0) {
        part = [];
        parts.push(part);
        room = most;
      }
      const end = Math.min(to, start + room);
      part.push([start, end]);
      room -= end - start;
      start = end;
    }
  }
  return parts;
}

/** What one part is about: rows on the device, or to be read. */
interface Rows {
  readonly rows: number;
  /** Rows that are to be read. */
  readonly runs: readonly RowRun[];
  /** A piece on the device that has them. */
  readonly held?: Resident | undefined;
  /** Of a held table, the rows of the piece that were asked for. */
  readonly local?: Int32Array | undefined;
}

/** A part before its rows are there. */
interface Piece extends Rows, Pick<StreamedPart, "request" | "tensor" | "from" | "whole"> {}

/** The pieces that a request is about, each with its rows: of a table, those that were asked for. */
function rowsHeld(held: readonly Resident[], { ids, run }: Request): Rows[] {
  if (ids) {
    const parts = held.map((piece) => {
      const [from, to] = piece.run;
      const local = ids.filter((id) => id >= from && id < to).map((id) => id - from);
      return { runs: [], held: piece, local, rows: local.length };
    });
    return parts.filter(({ rows }) => rows > 0);
  }
  return held
    .filter(({ run: [from, to] }) => run === undefined || (from >= run[0] && to <= run[1]))
    .map((piece) => ({ runs: [], held: piece, rows: rowCount([piece.run]) }));
}

/** A request as the parts that are read for it. */
function rowsToRead({ ids, run }: Request, { rows, width, experts }: FamilyTensor): Rows[] {
  const runs = ids ? runsOf(ids) : [run ?? ([0, rows] as const)];
  const most = Math.max(1, Math.floor(partBytes / (4 * width * Math.max(1, experts.length))));
  return cutRuns(runs, most).map((part) => ({ runs: part, rows: rowCount(part) }));
}

/** Some rows of what is held of a table. */
function rowsOfDeltas(deltas: Deltas | undefined, local: Int32Array): Deltas | undefined {
  if (!deltas) return undefined;
  if (deltas.packing === "sparse")
    throw new Error("sparse task vectors of a table are read from host memory");
  const ids = tensor1d(local, "int32");
  try {
    return deltaRows(deltas, ids);
  } finally {
    ids.dispose();
  }
}

/**
 * A held part. Of a table on the device only the rows that were asked for are taken; what is packed of the base is
 * float32 while it is in use.
 */
async function* heldPart(
  part: Omit<StreamedPart, "base" | "deltas">,
  held: Resident,
  local: Int32Array | undefined,
): AsyncGenerator<StreamedPart, void, void> {
  if (!local && held.base.packing === "f32") {
    yield { ...part, base: held.base.tensor, deltas: held.deltas };
    return;
  }
  const base = baseValues(held.base, local);
  const deltas = local ? rowsOfDeltas(held.deltas, local) : held.deltas;
  try {
    yield { ...part, base, deltas };
  } finally {
    base.dispose();
    if (local && deltas) disposeDeltas(deltas);
  }
}

/** Brings a part that was read to the device while it is in use. */
async function* uploadedPart(
  part: Omit<StreamedPart, "base" | "deltas">,
  host: Awaited<ReturnType<ReadRows>>,
): AsyncGenerator<StreamedPart, void, void> {
  const { width, experts } = part.tensor;
  const shape = { rows: part.rows, width };
  const base: Tensor = tensor2d(host.base, [part.rows, width]);
  const deltas = experts.length ? uploadDeltas(host.vectors, experts, shape) : undefined;
  try {
    yield { ...part, base, deltas };
  } finally {
    base.dispose();
    if (deltas) disposeDeltas(deltas);
  }
}

/** Reads parts a few ahead of the one in use. */
function readerAhead(work: readonly Piece[], read: ReadRows): (i: number) => ReturnType<ReadRows> {
  const ahead = new Map<number, ReturnType<ReadRows>>();
  return (i) => {
    for (const [j, next] of work.slice(i, i + 1 + readAhead).entries()) {
      if (next.held || ahead.has(i + j)) continue;
      const reading = read(next.tensor, next.runs);
      // It is awaited when its turn comes; until then a failure is not an unhandled one.
      reading.catch(() => {});
      ahead.set(i + j, reading);
    }
    const own = lookUp(ahead, i);
    ahead.delete(i);
    return own;
  };
}

/**
 * Brings requested tensors to the device, part after part.
 * @param resident the pieces of tensors that are there already
 * @param read where the others come from
 */
export function streamOf(
  tensors: ReadonlyMap<string, FamilyTensor>,
  resident: ReadonlyMap<string, readonly Resident[]>,
  read: ReadRows,
): (requests: readonly Request[]) => AsyncGenerator<StreamedPart, void, void> {
  function piecesOfRequest(asked: Request, request: number): Piece[] {
    const tensor = tensors.get(asked.name);
    if (!tensor) throw new Error(`the model asks for "${asked.name}", which was not loaded`);
    const held = resident.get(asked.name);
    const parts = held ? rowsHeld(held, asked) : rowsToRead(asked, tensor);
    let from = 0;
    return parts.map((part) => {
      const piece = { ...part, request, tensor, from, whole: parts.length === 1 };
      from += part.rows;
      return piece;
    });
  }
  return async function* stream(requests) {
    const work = requests.flatMap(piecesOfRequest);
    const readPart = readerAhead(work, read);
    for (const [i, { held, local, runs: _, ...part }] of work.entries()) {
      if (held) yield* heldPart(part, held, local);
      else yield* uploadedPart(part, await readPart(i));
    }
  };
}
