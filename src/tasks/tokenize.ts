import { existsSync } from "node:fs";
import { join } from "node:path";
import { Tokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { readJson } from "../checkpoint/files.js";
import { UserError } from "../errors.js";

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
const template = z.object({
  type: z.literal("TemplateProcessing"),
  single: z.array(piece),
  pair: z.array(piece),
  special_tokens: z.record(z.string(), z.object({ ids: z.array(z.number()) })),
});
type Template = z.infer<typeof template>;

/** The older BertProcessing is the same template in other words. */
const bertProcessing = z.object({
  type: z.literal("BertProcessing"),
  sep: z.tuple([z.string(), z.number()]),
  cls: z.tuple([z.string(), z.number()]),
});

/** RoBERTa's: the same, with two separators in a pair. */
const robertaProcessing = z.object({
  type: z.literal("RobertaProcessing"),
  sep: z.tuple([z.string(), z.number()]),
  cls: z.tuple([z.string(), z.number()]),
});

function readTemplate(json: unknown, path: string): Template {
  // Byte-level models add nothing; some say so beside a template.
  const listed =
    (json as { type?: unknown; processors?: unknown } | null | undefined)?.type === "Sequence"
      ? (json as { processors: { type?: unknown }[] }).processors
      : [json as { type?: unknown } | null | undefined];
  const [own, ...more] = listed.filter((one) => one && one.type !== "ByteLevel");
  if (!own)
    return {
      type: "TemplateProcessing",
      single: [{ Sequence: { id: "A", type_id: 0 } }],
      pair: [{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 0 } }],
      special_tokens: {},
    };
  if (more.length === 0) json = own;
  const direct = template.safeParse(json);
  if (direct.success) return direct.data;
  const roberta = robertaProcessing.safeParse(json);
  if (roberta.success) {
    const {
      cls: [cls, clsId],
      sep: [sep, sepId],
    } = roberta.data;
    const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });
    const text = (id: "A" | "B") => ({ Sequence: { id, type_id: 0 } });
    const single = [special(cls), text("A"), special(sep)];
    return {
      type: "TemplateProcessing",
      single,
      pair: [...single, special(sep), text("B"), special(sep)],
      special_tokens: { [cls]: { ids: [clsId] }, [sep]: { ids: [sepId] } },
    };
  }
  const bert = bertProcessing.safeParse(json);
  if (!bert.success)
    throw new UserError(
      `${path}: its post_processor is not one train-merge knows (TemplateProcessing, ` +
        "BertProcessing, RobertaProcessing, ByteLevel)",
    );
  const {
    cls: [cls, clsId],
    sep: [sep, sepId],
  } = bert.data;
  const special = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } });
  const single = [special(cls, 0), { Sequence: { id: "A" as const, type_id: 0 } }, special(sep, 0)];
  return {
    type: "TemplateProcessing",
    single,
    pair: [...single, { Sequence: { id: "B" as const, type_id: 1 } }, special(sep, 1)],
    special_tokens: { [cls]: { ids: [clsId] }, [sep]: { ids: [sepId] } },
  };
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

function construct(json: object, config: object, path: string): Tokenizer {
  try {
    return new Tokenizer(json, config);
  } catch (error) {
    throw new UserError(`${path}: ${(error as Error).message}`);
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
  const json = (await readJson(path)) as { post_processor?: unknown };
  const configPath = join(folder, "tokenizer_config.json");
  const form = readTemplate(json.post_processor, path);
  const tokenizer = construct(
    json,
    existsSync(configPath) ? ((await readJson(configPath)) as object) : {},
    path,
  );
  const idsOf = (token: string): number[] => {
    const ids = form.special_tokens[token]?.ids;
    if (!ids) throw new UserError(`${path}: its post_processor names "${token}" but does not say its id`);
    return ids;
  };
  const specialsIn = (pieces: Template["pair"]) =>
    pieces.reduce((n, p) => n + ("SpecialToken" in p ? idsOf(p.SpecialToken.id).length : 0), 0);
  const room = { single: maxLength - specialsIn(form.single), pair: maxLength - specialsIn(form.pair) };
  if (Math.min(room.single, room.pair) < 2)
    throw new UserError(`${path}: its special tokens leave no room for text in ${maxLength} tokens`);
  const tokens = (text: string) => [...tokenizer.encode(text, { add_special_tokens: false }).ids];
  return {
    vocabulary: tokenizer.get_vocab(true).size,
    whole: (text, special) =>
      special
        ? form.single.flatMap((p) => ("SpecialToken" in p ? idsOf(p.SpecialToken.id) : tokens(text)))
        : tokens(text),
    text: (ids) => (ids.length ? tokenizer.decode([...ids], { skip_special_tokens: true }) : ""),
    encode([first, second]) {
      const a = tokens(first);
      const b = second === undefined ? [] : tokens(second);
      const kind = second === undefined ? "single" : "pair";
      truncate(a, b, room[kind]);
      const ids: number[] = [];
      const types: number[] = [];
      for (const p of form[kind]) {
        const isSpecial = "SpecialToken" in p;
        const text = isSpecial || p.Sequence.id === "A" ? a : b;
        const added = isSpecial ? idsOf(p.SpecialToken.id) : text;
        const type = isSpecial ? p.SpecialToken.type_id : p.Sequence.type_id;
        for (const id of added) {
          ids.push(id);
          types.push(type);
        }
      }
      return { ids, types };
    },
  };
}
