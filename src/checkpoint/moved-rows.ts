/** A checkpoint with tables whose rows stand where another's do. */
import { at } from "../at.js";
import { UserError } from "../errors.js";
import {
  dtypeBytes,
  elements,
  fromFloat32,
  joined,
  runsOfRows,
  toFloat32,
  writtenType,
  isFloat,
} from "../tensor/dtype.js";
import { member, type Member } from "./family.js";
import { entryOf, type Checkpoint } from "./folder.js";
import { isInputTable, isOutputLayer } from "./names.js";
import type { Ref } from "./safetensors.js";

/** A table that rows are taken from. */
export interface RowTable {
  readonly rows: number;
  readonly ref: Ref;
  /** Some of its rows, as float32. */
  read(row: number, count: number): Promise<Float32Array>;
}

/** A table of a checkpoint. */
export function storedTable(checkpoint: Checkpoint, stored: string): RowTable {
  const { dtype, shape } = entryOf(checkpoint, stored);
  const rowBytes = (elements(shape) / at(shape, 0)) * dtypeBytes[dtype];
  return {
    rows: at(shape, 0),
    ref: checkpoint.ref(stored),
    read: async (row, count) =>
      toFloat32({
        dtype,
        shape: [],
        bytes: await checkpoint.readRange(stored, row * rowBytes, count * rowBytes),
      }),
  };
}

/** A table that is put together from rows of others. */
export interface MovedTable {
  /** Which row each is of those of all `tables`, laid end to end. */
  readonly map: Int32Array;
  readonly tables: readonly RowTable[];
  readonly shape: readonly number[];
  /** The table of its own that it stands for. */
  readonly stored: string;
}

/** Rows `from` to before `to` of a table as float32. */
export async function readRows(
  table: Pick<MovedTable, "map" | "tables">,
  from: number,
  to: number,
): Promise<Float32Array> {
  const pieces: Float32Array[] = [];
  for (const run of runsOfRows(table, from, to))
    pieces.push(await at(table.tables, run.table).read(run.from, run.count));
  return joined(pieces);
}

/** A checkpoint with tables of which some are put together. @param tables by the names that they are asked for by */
function withMovedRows(checkpoint: Checkpoint, tables: ReadonlyMap<string, MovedTable>): Checkpoint {
  const typeOf = ({ stored }: MovedTable) => writtenType(entryOf(checkpoint, stored).dtype);
  return {
    ...checkpoint,
    entry(name) {
      const table = tables.get(name);
      if (!table) return checkpoint.entry(name);
      return { ...entryOf(checkpoint, table.stored), dtype: typeOf(table), shape: table.shape };
    },
    ref(name) {
      const table = tables.get(name);
      if (!table) return checkpoint.ref(name);
      const { map, shape } = table;
      const width = elements(shape) / at(shape, 0);
      const parts = table.tables.map(({ rows, ref }) => ({ rows, ref }));
      return { ...checkpoint.ref(table.stored), moved: { map, width, tables: parts } };
    },
    async read(name) {
      const table = tables.get(name);
      if (!table) return checkpoint.read(name);
      const values = await readRows(table, 0, at(table.shape, 0));
      return { dtype: typeOf(table), shape: table.shape, bytes: fromFloat32(values, typeOf(table)) };
    },
    async readRange(name, start, length) {
      const table = tables.get(name);
      if (!table) return checkpoint.readRange(name, start, length);
      const size = dtypeBytes[typeOf(table)];
      const width = elements(table.shape) / at(table.shape, 0);
      const [from, to] = [start / size, (start + length) / size];
      const first = Math.floor(from / width);
      const values = await readRows(table, first, Math.ceil(to / width));
      const part = values.slice(from - first * width, to - first * width);
      return new Uint8Array(fromFloat32(part, typeOf(table)));
    },
  };
}

/**
 * A model with tables of which some are put together.
 * @param tables by canonical names. A tied model has one table under two names: two, where they are put together in
 *   two ways
 */
export function withTables(own: Member, tables: ReadonlyMap<string, MovedTable>): Member {
  const canonical = new Map<string, string>();
  const aliases = new Map<string, string>();
  const byStored = new Map<string, MovedTable>();
  for (const [name, stored] of own.actual) {
    const table = tables.get(name);
    if (!canonical.has(stored)) {
      canonical.set(stored, name);
      if (table) byStored.set(stored, table);
    } else {
      aliases.set(name, (table && name) ?? stored);
      if (table) byStored.set(name, table);
    }
  }
  const checkpoint = withMovedRows(own.checkpoint, byStored);
  return member(own.label, checkpoint, (stored) => canonical.get(stored) ?? stored, aliases);
}

/** Tokens and their ids. */
type TokenIds = ReadonlyMap<string, number>;

/**
 * Which row each of the first's is, of the rows of another's table and after them the first's.
 * @throws UserError where it has no row for a token
 */
function rowsFor(
  [first, other]: readonly [TokenIds, TokenIds],
  { rows, ownRows, where }: { rows: number; ownRows: number; where: string },
): Int32Array {
  const map = Int32Array.from({ length: rows }, (_, row) => ownRows + row);
  const [named, ownNamed] = [new Set(first.values()), new Set(other.values())];
  // Rows that no token has: padding, which is the same everywhere.
  for (let row = 0; row < Math.min(rows, ownRows); row++)
    if (!named.has(row) && !ownNamed.has(row)) map[row] = row;
  for (const [token, row] of first) {
    const own = other.get(token);
    if (own === undefined || row >= rows) continue;
    if (own >= ownRows)
      throw new UserError(
        `${where} has ${ownRows} rows, and its tokenizer gives ${JSON.stringify(token.slice(0, 20))} the id ${own}; ` +
          "they do not belong together",
      );
    map[row] = own;
  }
  return map;
}

/** What tables of tokens, and biases of the scores of tokens, are called outside of layers. */
const tableName = new RegExp(
  "(^|\\.)(embed_tokens|wte|word_embeddings?|tok_embeddings|token_embedding|embed_in|shared|embeddings?|lm_head|" +
    "embed_out|output|proj_out|vocab_projector|decoder|predictions|generator_lm_head)(\\.(weight|bias))?$",
);

/**
 * The tensors of a model that have a row a token: outside of layers, and as long as its table of embeddings.
 * @throws UserError where there is none, or one that may be, by its size, and is not known
 */
export function tablesOf({ checkpoint, actual, label }: Member): string[] {
  const shapeOf = (stored: string) => entryOf(checkpoint, stored).shape;
  const outside = [...actual].filter(([name]) => !/(^|\.)\d+\./.test(name));
  const [, main] =
    outside.find(([name]) => isInputTable(name)) ??
    outside.find(([name, stored]) => tableName.test(name) && shapeOf(stored).length === 2) ??
    [];
  const where = `${checkpoint.folder} (${label})`;
  if (main === undefined)
    throw new UserError(
      `${where}: its tokens have other ids, and it has no table of embeddings that is known`,
    );
  const rows = at(shapeOf(main), 0);
  return outside.flatMap(([name, stored]) => {
    const shape = shapeOf(stored);
    if (!shape.includes(rows) || !isFloat(entryOf(checkpoint, stored).dtype)) return [];
    if (shape[0] === rows && (tableName.test(name) || isOutputLayer(name))) return [name];
    // A width may be as large as a small vocabulary.
    if (shape[0] !== rows && shape.length === 2 && at(shape, 0) > 1) return [];
    throw new UserError(
      `${where}: its tokens have other ids, and "${name}" [${shape.join(", ")}] may have a row a token; it is not ` +
        "known. Save the models with one tokenizer",
    );
  });
}

/** One of the models, with the rows of its tables where the first has them. */
export function withRowsMoved(first: Member, other: Member, tokens: readonly [TokenIds, TokenIds]): Member {
  const tables = new Map<string, MovedTable>();
  for (const name of tablesOf(other)) {
    const [stored, own] = [other.actual.get(name), first.actual.get(name)];
    if (own === undefined || stored === undefined) continue;
    const { shape } = entryOf(first.checkpoint, own);
    const from = [storedTable(other.checkpoint, stored), storedTable(first.checkpoint, own)] as const;
    if (entryOf(other.checkpoint, stored).shape.slice(1).join() !== shape.slice(1).join()) continue;
    const where = `${other.checkpoint.folder} (${other.label}): "${stored}"`;
    const map = rowsFor(tokens, { rows: from[1].rows, ownRows: from[0].rows, where });
    tables.set(name, { map, tables: from, shape, stored });
  }
  return withTables(other, tables);
}
