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
import type { MovedRows } from "./safetensors.js";

/** A table with its rows in another's order. */
interface MovedTable {
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
function withMovedRows(checkpoint: Checkpoint, tables: ReadonlyMap<string, MovedTable>): Checkpoint {
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

/** Tokens and their ids. */
type TokenIds = ReadonlyMap<string, number>;

/** Where a table of another model has each of the first's rows. @throws UserError where it has no row for a token */
function rowsFor(
  [first, other]: readonly [TokenIds, TokenIds],
  { rows, ownRows, where }: { rows: number; ownRows: number; where: string },
): Int32Array {
  const map = new Int32Array(rows).fill(-1);
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
function tablesOf({ checkpoint, actual, label }: Member): string[] {
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
    const [entry, wanted] = [entryOf(other.checkpoint, stored), entryOf(first.checkpoint, own)];
    if (entry.shape.slice(1).join() !== wanted.shape.slice(1).join()) continue;
    const where = `${other.checkpoint.folder} (${other.label}): "${stored}"`;
    const map = rowsFor(tokens, { rows: at(wanted.shape, 0), ownRows: at(entry.shape, 0), where });
    const before = tables.get(stored);
    if (before && before.stored !== own && map.includes(-1))
      throw new UserError(
        `${where}: its input and output table are one, the first model's are two, and it lacks rows that each of ` +
          "them has; save it with two tables (tie_word_embeddings: false)",
      );
    if (!before) tables.set(stored, { map, base: first.checkpoint, stored: own, shape: wanted.shape });
  }
  // A tied model has its table under two names.
  const canonical = new Map<string, string>();
  const aliases = new Map<string, string>();
  for (const [name, stored] of other.actual) {
    if (canonical.has(stored)) aliases.set(name, stored);
    else canonical.set(stored, name);
  }
  const checkpoint = withMovedRows(other.checkpoint, tables);
  return member(other.label, checkpoint, (stored) => canonical.get(stored) ?? stored, aliases);
}
