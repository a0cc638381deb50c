/** A checkpoint with tables whose rows stand where another's do. */
import { at } from "../at.js";
import {
  dtypeBytes,
  elements,
  fromFloat32,
  joined,
  runsOfRows,
  toFloat32,
  writtenType,
} from "../tensor/dtype.js";
import { entryOf, type Checkpoint } from "./folder.js";
import type { MovedRows } from "./safetensors.js";

/** A table with its rows in another's order. */
export interface MovedTable {
  readonly map: Int32Array;
  /** Whose rows stand where it has none. */
  readonly base: Checkpoint;
  readonly stored: string;
  readonly shape: readonly number[];
}

/** Rows of a table as float32, row after row in the order wanted. */
async function readRows(
  checkpoint: Checkpoint,
  name: string,
  { map, base, stored }: MovedTable,
  part: readonly [number, number],
): Promise<Float32Array> {
  const read = async (from: Checkpoint, table: string, row: number, count: number) => {
    const { dtype, shape } = entryOf(from, table);
    const rowBytes = (elements(shape) / at(shape, 0)) * dtypeBytes[dtype];
    return toFloat32({
      dtype,
      shape: [],
      bytes: await from.readRange(table, row * rowBytes, count * rowBytes),
    });
  };
  const pieces: Float32Array[] = [];
  for (const [row, count, source] of runsOfRows(map, ...part)) {
    if (source < 0) pieces.push(await read(base, stored, row, count));
    else pieces.push(await read(checkpoint, name, source, count));
  }
  return joined(pieces);
}

/** A checkpoint with tables whose rows are moved. */
export function withMovedRows(checkpoint: Checkpoint, tables: ReadonlyMap<string, MovedTable>): Checkpoint {
  const typeOf = (name: string) => writtenType(entryOf(checkpoint, name).dtype);
  const refOf = ({ map, base, stored, shape }: MovedTable): MovedRows => ({
    map,
    width: elements(shape) / at(shape, 0),
    other: base.ref(stored),
  });
  return {
    ...checkpoint,
    entry(name) {
      const table = tables.get(name);
      const own = checkpoint.entry(name);
      if (!own || !table) return own;
      return { ...own, dtype: typeOf(name), shape: table.shape };
    },
    ref(name) {
      const table = tables.get(name);
      return { ...checkpoint.ref(name), ...(table && { moved: refOf(table) }) };
    },
    async read(name) {
      const table = tables.get(name);
      if (!table) return checkpoint.read(name);
      const values = await readRows(checkpoint, name, table, [0, at(table.shape, 0)]);
      return { dtype: typeOf(name), shape: table.shape, bytes: fromFloat32(values, typeOf(name)) };
    },
    async readRange(name, start, length) {
      const table = tables.get(name);
      if (!table) return checkpoint.readRange(name, start, length);
      const size = dtypeBytes[typeOf(name)];
      const width = elements(table.shape) / at(table.shape, 0);
      const [from, to] = [start / size, (start + length) / size];
      const rows = [Math.floor(from / width), Math.ceil(to / width)] as const;
      const values = await readRows(checkpoint, name, table, rows);
      const part = values.slice(from - rows[0] * width, to - rows[0] * width);
      return new Uint8Array(fromFloat32(part, typeOf(name)));
    },
  };
}
