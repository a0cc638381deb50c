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

export interface TextEncoder {
  readonly vocabulary: number;
  encode(texts: readonly [string] | readonly [string, string]): Encoded;
}

const piece = z.union([
  z.object({ SpecialToken: z.object({ id: z.string(), type_id: z.number() }) }),
  z.object({ Sequence: z.object({ id: z.enum(["A", "B"]), type_id: z.number() }) }),
]);
const template = z.object({
  type: z.literal("TemplateProcessing"),
  single: z.array(piece), pair: z.array(piece),
  special_tokens: z.record(z.string(), z.object({ ids: z.array(z.number()) })),
});
type Template = z.infer<typeof template>;

/** The older BertProcessing is the same template in other words. */
const bertProcessing = z.object({ type: z.literal("BertProcessing"), sep: z.tuple([z.string(), z.number()]), cls: z.tuple([z.string(), z.number()]) });

function readTemplate(json: unknown, path: string): Template {
  const direct = template.safeParse(json);
  if (direct.success) return direct.data;
  const bert = bertProcessing.safeParse(json);
  if (!bert.success) throw new UserError(`${path}: its post_processor is not one train-merge knows (TemplateProcessing, BertProcessing)`);
  const { cls: [cls, clsId], sep: [sep, sepId] } = bert.data;
  const special = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } });
  const single = [special(cls, 0), { Sequence: { id: "A" as const, type_id: 0 } }, special(sep, 0)];
  return {
    type: "TemplateProcessing", single, pair: [...single, { Sequence: { id: "B" as const, type_id: 1 } }, special(sep, 1)],
    special_tokens: { [cls]: { ids: [clsId] }, [sep]: { ids: [sepId] } },
  };
}

/** Shortens the longer of the two, a token at a time, until both fit: transformers' `longest_first`. */
function truncate(a: number[], b: number[], room: number): void {
  while (a.length + b.length > room) (a.length > b.length ? a : b).pop();
}

/**
 * Reads `tokenizer.json` of a folder. Truncates to `maxLength` (longest first); pads nothing: a batch pads
 * itself to its longest row, whatever padding the file asks for.
 */
export async function loadTokenizer(folder: string, maxLength: number): Promise<TextEncoder> {
  const path = join(folder, "tokenizer.json");
  if (!existsSync(path)) throw new UserError(`${folder}: there is no tokenizer.json; save the tokenizer beside the model (a fast one, save_pretrained)`);
  const json = (await readJson(path)) as { post_processor?: unknown };
  const configPath = join(folder, "tokenizer_config.json");
  const tokenizer = new Tokenizer(json, existsSync(configPath) ? ((await readJson(configPath)) as object) : {});
  const form = readTemplate(json.post_processor, path);
  const tokens = (text: string) => [...tokenizer.encode(text, { add_special_tokens: false }).ids];
  return {
    vocabulary: tokenizer.get_vocab(true).size,
    encode([first, second]) {
      const a = tokens(first);
      const b = second === undefined ? [] : tokens(second);
      const pieces = second === undefined ? form.single : form.pair;
      const specials = pieces.reduce((n, p) => n + ("SpecialToken" in p ? form.special_tokens[p.SpecialToken.id]!.ids.length : 0), 0);
      truncate(a, b, maxLength - specials);
      const ids: number[] = [];
      const types: number[] = [];
      for (const p of pieces) {
        const added = "SpecialToken" in p ? form.special_tokens[p.SpecialToken.id]!.ids : p.Sequence.id === "A" ? a : b;
        const type = "SpecialToken" in p ? p.SpecialToken.type_id : p.Sequence.type_id;
        for (const id of added) {
          ids.push(id);
          types.push(type);
        }
      }
      return { ids, types };
    },
  };
}
