/** What a tokenizer puts around texts: the post_processor of tokenizer.json. */
import { z } from "zod";
import { UserError } from "../errors.js";
import { isObject } from "./columns.js";

/** Token ids and segment numbers of one text or pair, special tokens included. */
export interface Encoded {
  readonly ids: readonly number[];
  readonly types: readonly number[];
}

const piece = z.union([
  z.object({ SpecialToken: z.object({ id: z.string(), type_id: z.number() }) }),
  z.object({ Sequence: z.object({ id: z.enum(["A", "B"]), type_id: z.number() }) }),
]);
export type TemplatePiece = z.infer<typeof piece>;
const template = z.object({
  type: z.literal("TemplateProcessing"),
  single: z.array(piece),
  pair: z.array(piece),
  special_tokens: z.record(z.string(), z.object({ ids: z.array(z.number()) })),
});
export type Template = Omit<z.infer<typeof template>, "type">;

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

/** @throws UserError where it is of a kind that is not known */
export function readTemplate(json: unknown, path: string): Template {
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

/** The texts of a template as tokens; of a single one, B is empty. */
export type TemplateTexts = Readonly<Record<"A" | "B", readonly number[]>>;
export const noTexts: TemplateTexts = { A: [], B: [] };

/**
 * Ids and segment numbers of a template's pieces, its texts being put in.
 * @throws UserError where a special token has no id
 */
export function fillTemplate(
  { special_tokens: known }: Template,
  pieces: readonly TemplatePiece[],
  texts: TemplateTexts,
): Encoded {
  const ids: number[] = [];
  const types: number[] = [];
  const add = (added: readonly number[], type: number) => {
    for (const id of added) {
      ids.push(id);
      types.push(type);
    }
  };
  for (const part of pieces) {
    if ("Sequence" in part) {
      add(texts[part.Sequence.id], part.Sequence.type_id);
      continue;
    }
    const { id, type_id: type } = part.SpecialToken;
    const own = known[id]?.ids;
    if (!own) throw new UserError(`its post_processor names "${id}" but does not say its id`);
    add(own, type);
  }
  return { ids, types };
}

/** How many tokens stand in front of one of a template's texts. */
export function tokensBefore(
  form: Template,
  pieces: readonly TemplatePiece[],
  side: "A" | "B",
  texts: TemplateTexts,
): number {
  const place = pieces.findIndex((part) => "Sequence" in part && part.Sequence.id === side);
  return fillTemplate(form, pieces.slice(0, place), texts).ids.length;
}
