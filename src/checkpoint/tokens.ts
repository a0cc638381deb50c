/** What a model's folder calls its tokens, by the files of its tokenizer. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { adapterOf, type Member } from "./family.js";
import { readJson } from "./files.js";

/** Tokens and their ids. */
export type Vocabulary = ReadonlyMap<string, number>;

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
  const lines = (await readFile(path, "utf8")).split(/\r?\n/);
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

export const tokenizerFolder = ({ checkpoint: { folder, home } }: Member): string => home ?? folder;

/** The first of some files that both folders have. */
const inBoth = (names: readonly string[], a: string, b: string): string | undefined =>
  names.find((name) => existsSync(join(a, name)) && existsSync(join(b, name)));

async function isSameFile(name: string, a: string, b: string): Promise<boolean> {
  const [one, other] = await Promise.all([readFile(join(a, name)), readFile(join(b, name))]);
  return one.equals(other);
}

/** What two models call tokens; undefined where they are one tokenizer, or no list says. */
export async function unlikeVocabularies(
  first: Member,
  other: Member,
): Promise<[first: Vocabulary, other: Vocabulary] | undefined> {
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
