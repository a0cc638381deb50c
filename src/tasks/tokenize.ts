import { existsSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { readJson } from "../checkpoint/files.js";
import { messageOf, UserError } from "../errors.js";
import { isObject } from "./examples.js";

/** Token ids and segment numbers of one text or pair, special tokens included. */
export interface Encoded {
  readonly ids: readonly number[];
  readonly types: readonly number[];
}

export interface TextTokenizer {
  readonly vocabulary: number;
  encode(texts: readonly [string] | readonly [string, string]): Encoded;
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
): Promise<{ tokenizer: Tokenizer; form: Template }> {
  const json = await readObject(path);
  const form = readTemplate(json["post_processor"], path);
  const configPath = join(folder, "tokenizer_config.json");
  const config = existsSync(configPath) ? await readObject(configPath) : {};
  try {
    return { tokenizer: new Tokenizer(json, config), form };
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
  const { tokenizer, form } = await readTokenizer(folder, path);
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
    encode([first, second]) {
      const a = tokens(first);
      if (second === undefined) return filled(form.single, { A: a.slice(0, room.single), B: [] });
      const b = tokens(second);
      truncate(a, b, room.pair);
      return filled(form.pair, { A: a, B: b });
    },
  };
}
