/** A result's tokenizer, where it is not that of the folder whose config it gets, or has more tokens. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { copyCompanions } from "./companions.js";
import { editJson, isRecord, writeText } from "./files.js";

/** A token that a tokenizer has beside its model's, as tokenizer.json says it. */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
}

/** How a folder's tokenizer comes to be the result's. */
export interface OtherTokenizer {
  /** The result's config, from that of the folder beside whose weights it stands. */
  config(own: Readonly<Record<string, unknown>>): Record<string, unknown>;
  /** Whether a file of that folder stays there. */
  replaces(path: string): boolean;
  write(out: string): Promise<void>;
}

type Json = Readonly<Record<string, unknown>>;

/** Files that are a tokenizer's, and the settings that name its tokens by their ids. */
const tokenizerFiles = new RegExp(
  "^((tokenizer|special_tokens|added_tokens|chat_template|generation_config|vocab|merges).*\\.(json|txt|jinja|model)|" +
    "(spiece|spm|sentencepiece\\.bpe)\\.model|tekken\\.json|additional_chat_templates/.*)$",
);

/** Keys of a config that name tokens by their ids. */
const isTokenKey = (key: string): boolean => /(^|_)token_(ids?|index)$/.test(key);

/** What a token that is added to a model's is like, where nothing else is known of it. */
const plainToken = { single_word: false, lstrip: false, rstrip: false, normalized: true, special: false };

/** The first number of tokens that a config gives, the outermost. */
function vocabularySize(config: Json): unknown {
  const { vocab_size: size, ...others } = config;
  if (size !== undefined) return size;
  const inner = Object.values(others).filter(isRecord).map(vocabularySize);
  return inner.find((one) => one !== undefined);
}

/**
 * A config with another number of tokens, wherever that stands.
 * @param plain the same with its numbers as numbers
 */
function withRows(config: Json, plain: Json, size: unknown, rows: number): Record<string, unknown> {
  const changed = Object.entries(config).map(([key, value]): [string, unknown] => {
    const before = plain[key];
    if (isRecord(value) && isRecord(before)) return [key, withRows(value, before, size, rows)];
    if (key === "vocab_size" && before === size) return [key, rows];
    return [key, value];
  });
  return Object.fromEntries(changed);
}

/** A config with the ids of another model's tokens. */
function withIds(config: Json, other: Json): Record<string, unknown> {
  const ids = Object.entries(other).filter(([key]) => isTokenKey(key));
  const own = Object.entries(config).filter(([key]) => !isTokenKey(key));
  const inner = own.map(([key, value]): [string, unknown] => {
    const beside = other[key];
    if (isRecord(value) && isRecord(beside)) return [key, withIds(value, beside)];
    return [key, value];
  });
  return Object.fromEntries([...inner, ...ids]);
}

/** Edits a JSON file where it is there. */
async function editFile(path: string, change: (object: Record<string, unknown>) => Json): Promise<void> {
  if (!existsSync(path)) return;
  await writeText(
    path,
    editJson(await readFile(path, "utf8"), (object) => ({ ...change(object) })),
  );
}

/** Adds tokens to the files of a tokenizer. */
async function addTokens(out: string, added: readonly AddedToken[]): Promise<void> {
  if (added.length === 0) return;
  const tokens = added.map((token) => ({ ...plainToken, ...token }));
  await editFile(join(out, "tokenizer.json"), ({ added_tokens: before, ...tokenizer }) => ({
    ...tokenizer,
    added_tokens: [before ?? [], tokens].flat(),
  }));
  await editFile(join(out, "tokenizer_config.json"), (config) => {
    const { added_tokens_decoder: before } = config;
    if (!isRecord(before)) return config;
    const more = tokens.map(({ id, ...token }) => [String(id), token] as const);
    return { ...config, added_tokens_decoder: { ...before, ...Object.fromEntries(more) } };
  });
  await editFile(join(out, "added_tokens.json"), (before) => ({
    ...before,
    ...Object.fromEntries(tokens.map(({ id, content }) => [content, id])),
  }));
}

/** What a result's tokenizer is made of. */
export interface TokenizerParts {
  /** The folder whose config the result gets. */
  readonly own: { readonly folder: string; readonly config: Json };
  /** Whose files are the tokenizer's, where that is another's. */
  readonly from?: { readonly folder: string; readonly config: Json } | undefined;
  readonly added: readonly AddedToken[];
  /** How long the result's tables are. */
  readonly rows: number;
}

export function otherTokenizer({ own, from, added, rows }: TokenizerParts): OtherTokenizer {
  const size = vocabularySize(own.config);
  return {
    config(config) {
      const sized = withRows(config, own.config, size, rows);
      if (size === undefined) sized["vocab_size"] = rows;
      if (!from) return sized;
      return withIds(sized, from.config);
    },
    replaces: (path) => from !== undefined && tokenizerFiles.test(path),
    async write(out) {
      if (from) await copyCompanions(from.folder, out, (path) => !tokenizerFiles.test(path));
      await addTokens(out, added);
    },
  };
}
