/** Which token each row of a table is of: tokenizers compared by what they hold, and rows put in one order. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.js";
import type { AdaptedCheckpoint } from "./adapted.js";
import { adapterOf, type Member } from "./family.js";
import { readJson, readTextFile } from "./files.js";
import { entryOf } from "./folder.js";
import { isInputTable, isOutputLayer } from "./names.js";
import { withRowsMoved } from "./moved-rows.js";
import type { AddedToken } from "./tokenizer-files.js";

/** Tokens and their ids. */
export type Vocabulary = ReadonlyMap<string, number>;

/** Ids beyond this are no rows of a table. */
const mostTokens = 2 ** 24;
const tokenId = z.int().min(0).max(mostTokens);

export const fastFile = "tokenizer.json";
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

/** The tokens that a folder's tokenizer has beside its model's, in the order of their ids. */
export async function addedTokensIn(folder: string): Promise<AddedToken[]> {
  const [fast, slow] = [join(folder, fastFile), join(folder, addedFile)];
  let added: AddedToken[] = [];
  if (existsSync(fast))
    added = [checkedList(tokenizerFile, await readJson(fast), fast).added_tokens ?? []].flat();
  else if (existsSync(slow)) added = [...(await ofJson(slow))].map(([content, id]) => ({ id, content }));
  return added.toSorted((a, b) => a.id - b.id);
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

/** Files that list tokens; the first that a folder has is read. */
const lists: readonly (readonly [file: string, read: (path: string) => Promise<Vocabulary>])[] = [
  [fastFile, ofTokenizer],
  ["vocab.json", ofJson],
  ["vocab.txt", ofLines],
];

/** Beside a list that is not tokenizer.json: tokens that were added. */
const addedFile = "added_tokens.json";
const isFast = (name: string): boolean => name === fastFile;

/** Sentencepiece's models: they are one, or they are not. */
const binaries = ["tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model"];

export const tokenizerFolder = ({ checkpoint: { folder, home } }: Member): string => home ?? folder;

const listIn = (folder: string) => lists.find(([name]) => existsSync(join(folder, name)));

/** The tokens of a folder's tokenizer; undefined where it lists none. */
export async function vocabularyIn(folder: string): Promise<Vocabulary | undefined> {
  const list = listIn(folder);
  if (!list) return undefined;
  const [name, read] = list;
  const tokens = await read(join(folder, name));
  const added = join(folder, addedFile);
  if (isFast(name) || !existsSync(added)) return tokens;
  return new Map([...tokens, ...(await ofJson(added))]);
}

async function isSameFile(name: string, a: string, b: string): Promise<boolean> {
  const paths = [join(a, name), join(b, name)];
  const there = paths.filter((path) => existsSync(path));
  if (there.length < 2) return there.length === 0;
  const [one, other] = await Promise.all(there.map((path) => readFile(path)));
  return one !== undefined && other !== undefined && one.equals(other);
}

/** Whether two folders have one tokenizer, byte for byte. */
async function isOneTokenizer(name: string, a: string, b: string): Promise<boolean> {
  if (listIn(b)?.[0] !== name || !(await isSameFile(name, a, b))) return false;
  return isFast(name) || isSameFile(addedFile, a, b);
}

type Vocabularies = readonly [first: Vocabulary, other: Vocabulary];

/** What two folders call tokens; undefined where they have one tokenizer, or list none. */
async function unlikeVocabularies(a: string, b: string): Promise<Vocabularies | undefined> {
  if (a === b) return undefined;
  const list = listIn(a);
  if (list && (await isOneTokenizer(list[0], a, b))) return undefined;
  const [first, other] = [await vocabularyIn(a), await vocabularyIn(b)];
  if (first && other) return [first, other];
  const binary = binaries.find((name) => existsSync(join(a, name)) && existsSync(join(b, name)));
  if (binary === undefined || (await isSameFile(binary, a, b))) return undefined;
  throw new UserError(
    `${b}: its ${binary} is not that of ${a}: their tokens may have other ids; save both tokenizers as fast ones ` +
      "(tokenizer.json), so that they can be compared",
  );
}

/** How many tokens there are, and the first of them. */
export function shown(tokens: readonly string[]): string {
  const first = tokens.slice(0, 3).map((token) => JSON.stringify(token.slice(0, 20)));
  if (tokens.length > first.length) first.push("…");
  return `${tokens.length} (${first.join(", ")})`;
}

/** Whether a table of a model has more or fewer rows than the first's. */
const hasOtherRows = (first: Member, other: Member): boolean =>
  [...first.actual].some(([name, stored]) => {
    const own = other.checkpoint.entry(other.actual.get(name) ?? "");
    return (
      own &&
      (isInputTable(name) || isOutputLayer(name)) &&
      own.shape[0] !== entryOf(first.checkpoint, stored).shape[0]
    );
  });

/** What two models call tokens, where rows must be moved; undefined where they stand as they are. */
async function vocabulariesOf(first: Member, other: Member): Promise<Vocabularies | undefined> {
  const [a, b] = [tokenizerFolder(first), tokenizerFolder(other)];
  const adapter = adapterOf(other);
  if (adapter) {
    await refuseOwnTokens(a, adapter);
    return undefined;
  }
  const unlike = await unlikeVocabularies(a, b);
  if (unlike || !hasOtherRows(first, other)) return unlike;
  // One tokenizer, and tables that are padded to another size.
  const own = await vocabularyIn(a);
  return own && [own, own];
}

/** @throws UserError where an adapter holds tables for tokens of its own: its base's tokenizer would be written */
export async function refuseOwnTokens(base: string, { adapter, replaced }: AdaptedCheckpoint): Promise<void> {
  const table = [...adapter.whole.keys(), ...replaced].find(
    (name) => isInputTable(name) || isOutputLayer(name),
  );
  if (table === undefined) return;
  const both = await unlikeVocabularies(base, adapter.folder);
  const [ofBase, own] = both ?? [];
  const more = [...(own ?? [])].filter(([token, id]) => ofBase?.get(token) !== id).map(([token]) => token);
  if (more.length)
    throw new UserError(
      `${adapter.folder}: it holds "${table}" whole and its tokenizer has tokens that ${base} lacks or gives ` +
        `other ids: ${shown(more)}; merge it into its model with PEFT (merge_and_unload) and give that`,
    );
}

/** @throws UserError where models have unlike tokenizers, and the one whose order counts has none */
async function refuseUnknownOrder(first: Member, members: readonly Member[]): Promise<void> {
  if (listIn(tokenizerFolder(first))) return;
  const [lister, ...others] = members.filter((one) => !adapterOf(one) && listIn(tokenizerFolder(one)));
  for (const one of others) {
    const [a, b] = [tokenizerFolder(lister ?? one), tokenizerFolder(one)];
    const [ofA, ofB] = (await unlikeVocabularies(a, b)) ?? [];
    if (ofA && ofB && [...ofA, ...ofB].some(([token]) => ofA.get(token) !== ofB.get(token)))
      throw new UserError(
        `${b} (${one.label}): its tokens are not those of ${a}, and ${tokenizerFolder(first)} has no tokenizer that ` +
          "says which order its rows have; put its tokenizer.json beside it",
      );
  }
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
  await refuseUnknownOrder(first, members);
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
          `and has ${shown(more)} more; ` +
          "`train-merge merge --tokenizer base` keeps the base's vocabulary, union has all tokens",
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
      found.push(withRowsMoved(first, one, both));
    else found.push(one);
  }
  return { members: found, notes };
}
