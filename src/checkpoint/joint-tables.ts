/** Tables of several models with rows for one vocabulary. */
import { at, f64, lookUp } from "../at.js";
import { UserError } from "../errors.js";
import type { Member } from "./family.js";
import { readRows, type MovedTable, type RowTable } from "./moved-rows.js";
import type { AddedToken } from "./tokenizer-files.js";
import type { Vocabulary } from "./vocabulary.js";

/** Where a token's row comes from, in models that lack it, or with `force` in all. */
export interface TokenRule {
  readonly source?: "zero" | TokenRow | undefined;
  readonly force?: boolean | undefined;
}

/** A row of a model: of this token, or of another of its tokens. */
export interface TokenRow {
  readonly model: string;
  readonly token?: string | undefined;
  readonly id?: number | undefined;
}

/** A model and what it calls tokens. */
export interface Speaker {
  readonly member: Member;
  readonly tokens: Vocabulary;
}

/** The result's tokens. */
export interface JointVocabulary {
  readonly tokens: Vocabulary;
  readonly added: readonly AddedToken[];
  readonly rows: number;
  readonly rules: ReadonlyMap<string, TokenRule>;
}

/** A row of one of the models' tables. */
type RowPlace = readonly [table: number, row: number];

/** A table of all models, each of which gets its own with the result's rows. */
export interface JointTable {
  readonly speakers: readonly Speaker[];
  readonly tables: readonly RowTable[];
  readonly vocabulary: JointVocabulary;
  /** Whether the first of them is the base. */
  readonly hasBase: boolean;
  readonly width: number;
}

/** Where a model has a token's row; undefined where it has none. */
function ownRow({ speakers, tables }: JointTable, i: number, token: string): RowPlace | undefined {
  const row = at(speakers, i).tokens.get(token) ?? Infinity;
  if (row < at(tables, i).rows) return [i, row];
  return undefined;
}

/** The rows whose mean stands for a token where a model has none; of no rows it is 0. */
function standIns(joint: JointTable, token: string): readonly RowPlace[] {
  const { speakers, hasBase, vocabulary } = joint;
  const rule = vocabulary.rules.get(token);
  if (rule) return ruledRows(joint, token, rule);
  const rows = [...speakers.keys()].map((i) => ownRow(joint, i, token)).filter((row) => row !== undefined);
  const [first] = rows;
  if (hasBase && first?.[0] === 0) return [first];
  return rows;
}

/** The row that a rule names. @throws UserError where there is none */
function ruledRows(joint: JointTable, token: string, { source }: TokenRule): readonly RowPlace[] {
  if (source === "zero") return [];
  const where = `tokens: ${JSON.stringify(token.slice(0, 40))}`;
  if (source === undefined)
    throw new UserError(`${where}: a model lacks it; name its source: a model, or kind: zero`);
  const { model, token: other = token, id } = source;
  const i = joint.speakers.findIndex(({ member }) => member.label === model);
  if (i < 0) throw new UserError(`${where}: ${model} is none of the models that are merged`);
  let row = ownRow(joint, i, other);
  if (id !== undefined && id < at(joint.tables, i).rows) row = [i, id];
  else if (id !== undefined) row = undefined;
  if (!row) throw new UserError(`${where}: ${model} has no row for it`);
  return [row];
}

/** Rows that are read at once. */
const rowsAtOnce = 4096;

/** The mean of rows that are read one after the other. */
async function meanOf(table: Pick<MovedTable, "map" | "tables">, width: number): Promise<Float32Array> {
  const rows = table.map.length;
  const sums = new Float64Array(width);
  for (let from = 0; from < rows; from += rowsAtOnce) {
    const part = await readRows(table, from, Math.min(rows, from + rowsAtOnce));
    part.forEach((value, i) => (sums[i % width] = f64(sums, i % width) + value));
  }
  return Float32Array.from(sums, (sum) => sum / Math.max(rows, 1));
}

/** Rows that no model has. */
function heldTable(rows: readonly Float32Array[], width: number): RowTable {
  const values = new Float32Array(rows.length * width);
  rows.forEach((row, i) => values.set(row, i * width));
  return {
    rows: rows.length,
    ref: { path: "", start: 0, dtype: "F32", values },
    read: (row, count) => Promise.resolve(values.subarray(row * width, (row + count) * width)),
  };
}

/** Each model's table with the result's rows. Held: rows that are means of others, and where each row is. */
export async function joinTables(joint: JointTable): Promise<Pick<MovedTable, "map" | "tables">[]> {
  const { speakers, tables, vocabulary, width } = joint;
  const { tokens, rules, rows } = vocabulary;
  const starts = tables.map((_, i) => tables.slice(0, i).reduce((sum, one) => sum + one.rows, 0));
  const placeOf = ([table, row]: RowPlace): number => at(starts, table) + row;
  const end = tables.reduce((sum, one) => sum + one.rows, 0);
  const held: Float32Array[] = [];
  const places = new Map<string, number>();
  for (const token of tokens.keys()) {
    const isIn = speakers.every((_, i) => ownRow(joint, i, token));
    if (isIn && rules.get(token)?.force !== true) continue;
    const from = standIns(joint, token).map(placeOf);
    const [only] = from;
    if (from.length === 1 && only !== undefined) places.set(token, only);
    else places.set(token, end + held.push(await meanOf({ map: Int32Array.from(from), tables }, width)) - 1);
  }
  const full = [...tables, heldTable(held, width)];
  const padding = end + held.length;
  const made: Pick<MovedTable, "map" | "tables">[] = [];
  for (const i of speakers.keys()) {
    const map = new Int32Array(rows).fill(padding);
    for (const [token, id] of tokens) {
      const own = ownRow(joint, i, token);
      if (own && rules.get(token)?.force !== true) map[id] = placeOf(own);
      else map[id] = lookUp(places, token);
    }
    const named = { map: map.filter((place) => place !== padding), tables: full };
    const row: Float32Array[] = [];
    if (named.map.length < rows) row.push(await meanOf(named, width));
    made.push({ map, tables: [...full, heldTable(row, width)] });
  }
  return made;
}
