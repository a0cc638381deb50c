/** Which token each row of a table is of: tokenizers compared by what they hold, and rows put in one order. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { adapterOf, type Member, member } from "./family.js";
import { readJson, readTextFile } from "./files.js";
import { isFloat } from "../tensor/dtype.js";
import { entryOf } from "./folder.js";
import { isInputTable, isOutputLayer } from "./names.js";
import { withMovedRows, type MovedTable } from "./moved-rows.js";

/** Tokens and their ids. */
type Vocabulary = ReadonlyMap<string, number>;

/** Ids beyond this are no rows of a table. */
const mostTokens = 2 ** 24;
const tokenId = z.int().min(0).max(mostTokens);

const tokenizerFile = z.looseObject({
  model: z.looseObject({
    vocab: z
      .union([z.record(z.string(), tokenId), z.array(z.tuple([z.string(), z.number()]).rest(z.unknown()))])
      .optional(),
  }),
  added_tokens: z.array(z.looseObject({ id: tokenId, content: z.string() })).nullish(),
});

const vocabularyFile = z.record(z.string(), tokenId);

/** @throws UserError where ids are no whole numbers in range */
function checkedList<T>(schema: z.ZodType<T>, value: unknown, path: string): T {
  const found = schema.safeParse(value);
  if (found.success) return found.data;
  const [issue] = found.error.issues;
  throw new UserError(
    `${path}: ${issue?.path.join(".").slice(0, 80)}: it is no list of tokens with whole numbers from 0 to ` +
      String(mostTokens),
  );
}

/** The tokens of a tokenizer.json. */
async function ofTokenizer(path: string): Promise<Vocabulary> {
  const { model, added_tokens: added } = checkedList(tokenizerFile, await readJson(path), path);
  const { vocab = {} } = model;
  // Unigram's list has no ids: they are its places.
  const listed = Array.isArray(vocab)
    ? vocab.map(([token], id) => [token, id] as const)
    : Object.entries(vocab);
  return new Map([...listed, ...(added ?? []).map(({ id, content }) => [content, id] as const)]);
}

async function ofLines(path: string): Promise<Vocabulary> {
  const lines = (await readTextFile(path)).split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  return new Map(lines.map((token, id) => [token, id]));
}

const ofJson = async (path: string): Promise<Vocabulary> =>
  new Map(Object.entries(checkedList(vocabularyFile, await readJson(path), path)));

/** Files that list tokens, the first that both models have is compared. */
const lists: readonly (readonly [file: string, read: (path: string) => Promise<Vocabulary>])[] = [
  ["tokenizer.json", ofTokenizer],
  ["vocab.json", ofJson],
  ["vocab.txt", ofLines],
];

/** Sentencepiece's models: they are one, or they are not. */
const binaries = ["tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model"];

const tokenizerFolder = ({ checkpoint: { folder, home } }: Member): string => home ?? folder;

/** The first of some files that both folders have. */
const inBoth = (names: readonly string[], a: string, b: string): string | undefined =>
  names.find((name) => existsSync(join(a, name)) && existsSync(join(b, name)));

async function isSameFile(name: string, a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([readFile(join(a, name)), readFile(join(b, name))]);
  return one.equals(other);
}

type Vocabularies = readonly [first: Vocabulary, other: Vocabulary];

/** The tokens that two folders list alike; undefined where none of them does. */
async function vocabularyIn(a: string, b: string): Promise<Vocabulary | undefined> {
  const found = lists.find(([name]) => inBoth([name], a, b));
  return found && found[1](join(a, found[0]));
}

/** What two models call tokens; undefined where they are one tokenizer, or no list says. */
async function unlikeVocabularies(first: Member, other: Member): Promise<Vocabularies | undefined> {
  const [a, b] = [tokenizerFolder(first), tokenizerFolder(other)];
  // An adapter has its base's.
  if (a === b || adapterOf(other)) return undefined;
  const listed = inBoth(
    lists.map(([name]) => name),
    a,
    b,
  );
  const binary = inBoth(binaries, a, b);
  if (listed === undefined) {
    if (binary === undefined || (await isSameFile(binary, a, b))) return undefined;
    throw new UserError(
      `${b} (${other.label}): its ${binary} is not that of ${a}: their tokens may have other ids; save both ` +
        "tokenizers as fast ones (tokenizer.json), so that they can be compared",
    );
  }
  if (await isSameFile(listed, a, b)) return undefined;
  const [, read] = lists.find(([name]) => name === listed) ?? at(lists, 0);
  return Promise.all([read(join(a, listed)), read(join(b, listed))]);
}

/** How many tokens there are, and the first of them. */
function shown(tokens: readonly string[]): string {
  const first = tokens.slice(0, 3).map((token) => JSON.stringify(token.slice(0, 20)));
  if (tokens.length > first.length) first.push("…");
  return `${tokens.length} (${first.join(", ")})`;
}

/** Where the tables of a model have each of another's rows. */
function rowsFor(
  first: Vocabulary,
  other: Vocabulary,
  { rows, ownRows }: { rows: number; ownRows: number },
): Int32Array {
  const map = new Int32Array(rows).fill(-1);
  const [named, ownNamed] = [new Set(first.values()), new Set(other.values())];
  // Rows that no token has: padding, which is the same everywhere.
  for (let row = 0; row < Math.min(rows, ownRows); row++)
    if (!named.has(row) && !ownNamed.has(row)) map[row] = row;
  for (const [token, row] of first) {
    const own = other.get(token);
    if (own !== undefined && own < ownRows && row < rows) map[row] = own;
  }
  return map;
}

/** Whether a tensor has a row a token. */
const isTable = (name: string): boolean =>
  isInputTable(name) ||
  isOutputLayer(name) ||
  /(^|\.)(lm_head|predictions|predictions\.decoder)\.bias$/.test(name);

/** One of the models, with the rows of its tables where the first has them. */
function moved(first: Member, other: Member, [ofFirst, ofOther]: Vocabularies): Member {
  const tables = new Map<string, MovedTable>();
  for (const [name, stored] of other.actual) {
    const own = first.actual.get(name);
    if (own === undefined || !isTable(name)) continue;
    const [entry, wanted] = [entryOf(other.checkpoint, stored), entryOf(first.checkpoint, own)];
    if (!isFloat(entry.dtype) || entry.shape.slice(1).join() !== wanted.shape.slice(1).join()) continue;
    const map = rowsFor(ofFirst, ofOther, { rows: at(wanted.shape, 0), ownRows: at(entry.shape, 0) });
    tables.set(stored, { map, base: first.checkpoint, stored: own, shape: wanted.shape });
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

/** Whether a table of a model has more or fewer rows than the first's. */
const hasOtherRows = (first: Member, other: Member): boolean =>
  [...first.actual].some(([name, stored]) => {
    const own = other.checkpoint.entry(other.actual.get(name) ?? "");
    return own && isTable(name) && own.shape[0] !== entryOf(first.checkpoint, stored).shape[0];
  });

/** What two models call tokens, where rows must be moved; undefined where they stand as they are. */
async function vocabulariesOf(first: Member, other: Member): Promise<Vocabularies | undefined> {
  const unlike = await unlikeVocabularies(first, other);
  if (unlike || adapterOf(other) || !hasOtherRows(first, other)) return unlike;
  // One tokenizer, and tables that are padded to another size.
  const own = await vocabularyIn(tokenizerFolder(first), tokenizerFolder(other));
  return own && [own, own];
}

/**
 * Compares every model's tokenizer with the first's, by tokens and ids. Where the same tokens have other ids, the rows
 * of a model's tables are put where the first has them.
 * @param keep "base": of unlike vocabularies the first's is kept; tokens that another lacks are as the first has them
 * @returns the models, and what was done, a line each
 * @throws UserError where vocabularies are unlike and nothing is said of it, naming tokens of each
 */
export async function withOneVocabulary(
  members: readonly Member[],
  first: Member,
  keep?: "base",
): Promise<{ readonly members: readonly Member[]; readonly notes: readonly string[] }> {
  const notes: string[] = [];
  const found: Member[] = [];
  for (const one of members) {
    const both = await vocabulariesOf(first, one);
    if (!both) {
      found.push(one);
      continue;
    }
    const [ofFirst, ofOther] = both;
    const lacking = [...ofFirst.keys()].filter((token) => !ofOther.has(token));
    const more = [...ofOther.keys()].filter((token) => !ofFirst.has(token));
    const elsewhere = [...ofFirst].filter(([token, id]) => (ofOther.get(token) ?? id) !== id);
    const where = `${tokenizerFolder(one)} (${one.label})`;
    if (keep === undefined && (lacking.length || more.length))
      throw new UserError(
        `${where}: its vocabulary is not that of ${tokenizerFolder(first)}: it lacks ${shown(lacking)} of its tokens ` +
          `and has ${shown(more)} more; --tokenizer base keeps the vocabulary of ${tokenizerFolder(first)}`,
      );
    if (lacking.length || more.length)
      notes.push(
        `${where}: it lacks ${shown(lacking)} tokens, which are as the base has them, and ` +
          `${shown(more)} are left out`,
      );
    if (elsewhere.length)
      notes.push(
        `${where}: ${shown(elsewhere.map(([token]) => token))} tokens have other ids there: rows are moved`,
      );
    if (lacking.length || more.length || elsewhere.length || hasOtherRows(first, one))
      found.push(moved(first, one, both));
    else found.push(one);
  }
  return { members: found, notes };
}
