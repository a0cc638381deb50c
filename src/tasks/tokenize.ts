import { existsSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { readJson } from "../checkpoint/files.js";
import { messageOf, UserError } from "../errors.js";
import { charactersOf } from "./characters.js";
import { isObject } from "./examples.js";

/** Token ids and segment numbers of one text or pair, special tokens included. */
export interface Encoded {
  readonly ids: readonly number[];
  readonly types: readonly number[];
}

/** A question with a part of its context. */
export interface ContextWindow extends Encoded {
  /** The first token of the context, and the one after its last. */
  readonly within: readonly [from: number, to: number];
  /** Of every token within, its first character in the context and the one after its last. */
  readonly characters: readonly (readonly [start: number, end: number])[];
}

export interface TextTokenizer {
  readonly vocabulary: number;
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

const piece = z.union([
  z.object({ SpecialToken: z.object({ id: z.string(), type_id: z.number() }) }),
  z.object({ Sequence: z.object({ id: z.enum(["A", "B"]), type_id: z.number() }) }),
]);
type TemplatePiece = z.infer<typeof piece>;
const template = z.object({
  type: z.literal("TemplateProcessing"),
  single: z.array(piece),
  pair: z.array(piece),
  special_tokens: z.record(z.string(), z.object({ ids: z.array(z.number()) })),
});
type Template = Omit<z.infer<typeof template>, "type">;

/** The older BertProcessing is the same template in other words; RoBERTa's has two separators in a pair. */
const namedProcessing = z.object({
  type: z.enum(["BertProcessing", "RobertaProcessing"]),
  sep: z.tuple([z.string(), z.number()]),
  cls: z.tuple([z.string(), z.number()]),
});

const special = (id: string, type: number): TemplatePiece => ({ SpecialToken: { id, type_id: type } });
const sequence = (id: "A" | "B", type: number): TemplatePiece => ({ Sequence: { id, type_id: type } });

/** A named processing as a template. */
function asTemplate({
  type,
  cls: [cls, clsId],
  sep: [sep, sepId],
}: z.infer<typeof namedProcessing>): Template {
  const single = [special(cls, 0), sequence("A", 0), special(sep, 0)];
  const second = {
    BertProcessing: [sequence("B", 1), special(sep, 1)],
    RobertaProcessing: [special(sep, 0), sequence("B", 0), special(sep, 0)],
  }[type];
  return {
    single,
    pair: [...single, ...second],
    special_tokens: { [cls]: { ids: [clsId] }, [sep]: { ids: [sepId] } },
  };
}

/** The processors of a post_processor: its own list, or itself alone. */
function processorsIn(json: unknown): unknown[] {
  if (isObject(json) && json["type"] === "Sequence" && Array.isArray(json["processors"]))
    return json["processors"];
  return [json];
}

/** The steps of a pre_tokenizer. */
function preTokenizersIn(json: unknown): unknown[] {
  if (isObject(json) && json["type"] === "Sequence" && Array.isArray(json["pretokenizers"]))
    return json["pretokenizers"];
  return [json];
}

function readTemplate(json: unknown, path: string): Template {
  // Byte-level models add nothing; some say so beside a template.
  const processors = processorsIn(json).filter((one) => isObject(one) && one["type"] !== "ByteLevel");
  if (processors.length === 0)
    return { single: [sequence("A", 0)], pair: [sequence("A", 0), sequence("B", 0)], special_tokens: {} };
  const [only, ...more] = processors;
  const direct = template.safeParse(only);
  const named = namedProcessing.safeParse(only);
  // Several are none of ours, whatever each of them is.
  if (direct.success && more.length === 0) return direct.data;
  if (named.success && more.length === 0) return asTemplate(named.data);
  throw new UserError(
    `${path}: its post_processor is not one train-merge knows (TemplateProcessing, ` +
      "BertProcessing, RobertaProcessing, ByteLevel)",
  );
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
async function readTokenizer(
  folder: string,
  path: string,
): Promise<{ tokenizer: Tokenizer; form: Template; isByteLevel: boolean; spaced: boolean }> {
  const json = await readObject(path);
  const steps = preTokenizersIn(json["pre_tokenizer"]);
  const isByteLevel = steps.some((step) => isObject(step) && step["type"] === "ByteLevel");
  const form = readTemplate(json["post_processor"], path);
  const configPath = join(folder, "tokenizer_config.json");
  const config = existsSync(configPath) ? await readObject(configPath) : {};
  try {
    // Where it stands alone, words are read with the space in front of them, as GPT-2 and RoBERTa were.
    const spaced = isByteLevel && steps.length === 1;
    return { tokenizer: new Tokenizer(json, config), form, isByteLevel, spaced };
  } catch (error) {
    throw new UserError(`${path}: ${messageOf(error)}`);
  }
}

/**
 * Reads `tokenizer.json` of a folder. Truncates to `maxLength` (longest first); pads nothing: a batch pads
 * itself to its longest row, whatever padding the file asks for.
 */
export async function loadTokenizer(folder: string, maxLength: number): Promise<TextTokenizer> {
  const path = join(folder, "tokenizer.json");
  if (!existsSync(path))
    throw new UserError(
      `${folder}: there is no tokenizer.json; save the tokenizer beside the model (a fast one, save_pretrained)`,
    );
  const { tokenizer, form, isByteLevel, spaced } = await readTokenizer(folder, path);
  const idsOf = (token: string): number[] => {
    const ids = form.special_tokens[token]?.ids;
    if (!ids) throw new UserError(`${path}: its post_processor names "${token}" but does not say its id`);
    return ids;
  };
  /** Ids and segment numbers of a template's pieces, its texts being put in. */
  const filled = (
    pieces: readonly TemplatePiece[],
    texts: Readonly<Record<"A" | "B", readonly number[]>>,
  ): Encoded => {
    const ids: number[] = [];
    const types: number[] = [];
    const add = (added: readonly number[], type: number) => {
      for (const id of added) {
        ids.push(id);
        types.push(type);
      }
    };
    for (const part of pieces) {
      if ("Sequence" in part) add(texts[part.Sequence.id], part.Sequence.type_id);
      else add(idsOf(part.SpecialToken.id), part.SpecialToken.type_id);
    }
    return { ids, types };
  };
  const roomIn = (pieces: readonly TemplatePiece[]) =>
    maxLength - filled(pieces, { A: [], B: [] }).ids.length;
  const room = { single: roomIn(form.single), pair: roomIn(form.pair) };
  if (Math.min(room.single, room.pair) < 2)
    throw new UserError(`${path}: its special tokens leave no room for text in ${maxLength} tokens`);
  const tokens = (text: string) => [...tokenizer.encode(text, { add_special_tokens: false }).ids];
  /** Tokens in front of a template's text A, or B. */
  const before = (pieces: readonly TemplatePiece[], side: "A" | "B", texts: { A: number[]; B: number[] }) =>
    filled(
      pieces.slice(
        0,
        pieces.findIndex((part) => "Sequence" in part && part.Sequence.id === side),
      ),
      texts,
    ).ids.length;
  return {
    vocabulary: tokenizer.get_vocab(true).size,
    whole(text, withSpecial) {
      if (!withSpecial) return tokens(text);
      return [...filled(form.single, { A: tokens(text), B: [] }).ids];
    },
    text(ids) {
      if (ids.length === 0) return "";
      return tokenizer.decode([...ids], { skip_special_tokens: true });
    },
    encodeWords(words) {
      const each = words.map((word) => tokens(spaced ? ` ${word}` : word));
      const from = before(form.single, "A", { A: [], B: [] });
      let place = 0;
      const firstOf = each.map(({ length }) => {
        const start = place;
        place += length;
        // A word of no tokens at all (a control character) has no first one.
        return length > 0 && start < room.single ? from + start : -1;
      });
      return { ...filled(form.single, { A: each.flat().slice(0, room.single), B: [] }), firstOf };
    },
    encodeWindows(question, context) {
      const [asked, read] = [tokens(question), tokens(context)];
      // The question is cut where nothing of the context would be left.
      const a = asked.slice(0, Math.max(0, room.pair - Math.min(read.length, shortestWindow)));
      const most = room.pair - a.length;
      const stride = Math.max(1, most - Math.min(128, most >> 1));
      const characters = charactersOf(
        context,
        read.map((id) => tokenizer.id_to_token(id) ?? ""),
        isByteLevel,
      );
      const windows: ContextWindow[] = [];
      for (let start = 0; start === 0 || start + most - stride < read.length; start += stride) {
        const b = read.slice(start, start + most);
        const from = before(form.pair, "B", { A: a, B: b });
        windows.push({
          ...filled(form.pair, { A: a, B: b }),
          within: [from, from + b.length],
          characters: characters.slice(start, start + most),
        });
      }
      return windows;
    },
    encode([first, second]) {
      const a = tokens(first);
      if (second === undefined) return filled(form.single, { A: a.slice(0, room.single), B: [] });
      const b = tokens(second);
      truncate(a, b, room.pair);
      return filled(form.pair, { A: a, B: b });
    },
  };
}
