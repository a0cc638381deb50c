import { existsSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { readJson } from "../checkpoint/files.js";
import { readSentencePiece } from "../checkpoint/sentencepiece.js";
import { messageOf, UserError } from "../errors.js";
import { charactersOf, type Spelling } from "./characters.js";
import { isObject } from "./columns.js";
import {
  fillTemplate,
  noTexts,
  readTemplate,
  tokensBefore,
  type Encoded,
  type Template,
  type TemplatePiece,
} from "./template.js";

/** A question with a part of its context. */
export interface ContextWindow extends Encoded {
  /** The first token of the context, and the one after its last. */
  readonly within: readonly [from: number, to: number];
  /** Of every token within, its first character in the context and the one after its last. */
  readonly characters: readonly (readonly [start: number, end: number])[];
}

export interface TextTokenizer {
  readonly vocabulary: number;
  /** Tokens that are no part of a text: ends, and signs between turns. */
  readonly specials: readonly string[];
  encode(texts: readonly [string] | readonly [string, string]): Encoded;
  /** Words, as a text: with the place of each word's first token; −1 where the text was cut before it. */
  encodeWords(words: readonly string[]): Encoded & { readonly firstOf: readonly number[] };
  /**
   * A question and a context, in as many windows as the context needs, half of one in the next. Of every window: where
   * its part of the context stands among its tokens, and which characters each of these is of.
   */
  encodeWindows(question: string, context: string): ContextWindow[];
  /** Ids of a text, special tokens as for a single one, uncut; or without them. */
  whole(text: string, special: boolean): number[];
  /** What ids say, special tokens left out. */
  text(ids: readonly number[]): string;
}

/** The steps of a pre_tokenizer. */
function preTokenizersIn(json: unknown): unknown[] {
  if (isObject(json) && json["type"] === "Sequence" && Array.isArray(json["pretokenizers"]))
    return json["pretokenizers"];
  return [json];
}

/**
 * Cuts a pair to `room` tokens as transformers' fast tokenizers do for `longest_first`: the longer one
 * alone while that is enough, else both to one half, the odd token going to the longer (to b where they
 * are equal).
 */
function truncate(a: number[], b: number[], room: number): void {
  if (a.length + b.length <= room) return;
  const half = Math.floor(room / 2);
  const [short, long] = a.length > b.length ? [b, a] : [a, b];
  if (short.length <= half) {
    long.length = room - short.length;
  } else {
    short.length = half;
    long.length = room - half;
  }
}

/** Tokens of a context that are left, however long its question is. */
const shortestWindow = 16;

/** The object in a JSON file. */
async function readObject(path: string): Promise<Readonly<Record<string, unknown>>> {
  const json = await readJson(path);
  if (!isObject(json)) throw new UserError(`${path}: not a JSON object`);
  return json;
}

/** The tokenizer of a folder's files, and what it puts around texts. */
interface ReadTokenizer {
  /** The file that it is read from. */
  readonly path: string;
  readonly tokenizer: Tokenizer;
  /** What is done to a text before. */
  prepare(text: string): string;
  readonly form: Template;
  readonly spelling: Spelling;
  /** Whether words are given to it with the space in front of each: GPT-2 and RoBERTa. */
  readonly spaced: boolean;
  readonly specials: readonly string[];
}

/** Tokens that a tokenizer's file calls special. */
const specialsIn = (added: unknown): string[] =>
  (Array.isArray(added) ? added : []).flatMap((token: unknown) =>
    isObject(token) && token["special"] === true && typeof token["content"] === "string"
      ? [token["content"]]
      : [],
  );

/** SentencePiece's own file, where a tokenizer was never saved as a fast one. */
const sentencePieceFile = "spiece.model";
/** As many as T5 has where its config does not say. */
const customaryExtra = 100;

/** What a folder says of its tokenizer, and what is done to a text before. @throws UserError where it says nothing */
async function tokenizerFiles(folder: string, config: Readonly<Record<string, unknown>>) {
  const path = join(folder, "tokenizer.json");
  if (existsSync(path)) return { path, json: await readObject(path), prepare: (text: string) => text };
  const model = join(folder, sentencePieceFile);
  if (!existsSync(model))
    throw new UserError(
      `${folder}: there is no tokenizer.json; save the tokenizer beside the model (a fast one, save_pretrained), ` +
        "or name the base that has one with --base",
    );
  const { extra_ids: extra = customaryExtra } = config;
  if (typeof extra !== "number" || extra < 0 || extra > 10_000)
    throw new UserError(`${folder}: tokenizer_config.json: extra_ids must be a number`);
  return { path: model, ...(await readSentencePiece(model, extra)) };
}

async function readTokenizer(folder: string): Promise<ReadTokenizer> {
  const configPath = join(folder, "tokenizer_config.json");
  const config = existsSync(configPath) ? await readObject(configPath) : {};
  const { path, json, prepare } = await tokenizerFiles(folder, config);
  const steps = preTokenizersIn(json["pre_tokenizer"]);
  const isByteLevel = steps.some((step) => isObject(step) && step["type"] === "ByteLevel");
  let spelling: Spelling = "letters";
  if (isObject(json["model"]) && json["model"]["type"] === "WordPiece") spelling = "words";
  if (isByteLevel) spelling = "bytes";
  const form = readTemplate(json["post_processor"], path);
  try {
    // Later models have a step in front of it.
    const spaced = isByteLevel && steps.length === 1;
    const specials = specialsIn(json["added_tokens"]);
    return { path, tokenizer: new Tokenizer(json, config), prepare, form, spelling, spaced, specials };
  } catch (error) {
    throw new UserError(`${path}: ${messageOf(error)}`);
  }
}

/** A tokenizer with the room that its template leaves. */
interface WordReader extends ReadTokenizer {
  readonly room: Readonly<Record<"single" | "pair", number>>;
  tokens(text: string): number[];
}

/** See {@link TextTokenizer.encodeWords}. */
function wordsAsRow(
  { form, room, tokens, spaced }: WordReader,
  words: readonly string[],
): Encoded & { readonly firstOf: readonly number[] } {
  const each = words.map((word) => tokens(spaced ? ` ${word}` : word));
  const from = tokensBefore(form, form.single, "A", noTexts);
  let place = 0;
  const firstOf = each.map(({ length }) => {
    const start = place;
    place += length;
    // A word of no tokens at all (a control character) has no first one.
    const isThere = length > 0 && start < room.single;
    return isThere ? from + start : -1;
  });
  const kept = each.flat().slice(0, room.single);
  return { ...fillTemplate(form, form.single, { A: kept, B: [] }), firstOf };
}

/** See {@link TextTokenizer.encodeWindows}. Overlaps are those of transformers' pipeline: 128 tokens, or half. */
function windowsOf(
  { tokenizer, form, room, tokens, spelling }: WordReader,
  question: string,
  context: string,
): ContextWindow[] {
  const read = tokens(context);
  // The question is cut where nothing of the context would be left.
  const A = tokens(question).slice(
    0,
    Math.max(0, room.pair - Math.max(1, Math.min(read.length, shortestWindow))),
  );
  const most = room.pair - A.length;
  const overlap = Math.min(128, most >> 1);
  const spelled = read.map((id) => tokenizer.id_to_token(id) ?? "");
  const characters = charactersOf(context, spelled, spelling);
  const windows: ContextWindow[] = [];
  for (let start = 0; start === 0 || start + overlap < read.length; start += most - overlap) {
    const B = read.slice(start, start + most);
    const from = tokensBefore(form, form.pair, "B", { A, B });
    windows.push({
      ...fillTemplate(form, form.pair, { A, B }),
      within: [from, from + B.length],
      characters: characters.slice(start, start + most),
    });
  }
  return windows;
}

/**
 * Reads `tokenizer.json` of a folder, or SentencePiece's `spiece.model` where there is none. Truncates to `maxLength`
 * (longest first); pads nothing: a batch pads itself to its longest row, whatever padding the file asks for.
 */
export async function loadTokenizer(folder: string, maxLength: number): Promise<TextTokenizer> {
  const read = await readTokenizer(folder);
  const { path, tokenizer, prepare, form } = read;
  const roomIn = (pieces: readonly TemplatePiece[]) =>
    maxLength - fillTemplate(form, pieces, noTexts).ids.length;
  const room = { single: roomIn(form.single), pair: roomIn(form.pair) };
  if (Math.min(room.single, room.pair) < 2)
    throw new UserError(`${path}: its special tokens leave no room for text in ${maxLength} tokens`);
  const tokens = (text: string) => [...tokenizer.encode(prepare(text), { add_special_tokens: false }).ids];
  const words: WordReader = { ...read, room, tokens };
  return {
    vocabulary: tokenizer.get_vocab(true).size,
    specials: read.specials,
    whole(text, withSpecial) {
      if (!withSpecial) return tokens(text);
      return [...fillTemplate(form, form.single, { A: tokens(text), B: [] }).ids];
    },
    text(ids) {
      if (ids.length === 0) return "";
      return tokenizer.decode([...ids], { skip_special_tokens: true });
    },
    encodeWords: (list) => wordsAsRow(words, list),
    encodeWindows: (question, context) => windowsOf(words, question, context),
    encode([first, second]) {
      const a = tokens(first);
      if (second === undefined) return fillTemplate(form, form.single, { A: a.slice(0, room.single), B: [] });
      const b = tokens(second);
      truncate(a, b, room.pair);
      return fillTemplate(form, form.pair, { A: a, B: b });
    },
  };
}
