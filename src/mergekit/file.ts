import { z } from "zod";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { readNumber } from "../methods/values.js";

/** A number, flag or word; several of the numbers are a gradient over the layers. */
const scalar = z.union([z.number(), z.boolean(), z.string()]);
export type MergekitScalar = z.infer<typeof scalar>;
const scalarOrGradient = z.union([scalar, z.array(scalar)]);
const conditional = z.strictObject({ value: scalarOrGradient, filter: z.string().nullish() });
const setting = z.union([scalarOrGradient, conditional, z.array(conditional)]);
export type MergekitSetting = z.infer<typeof setting>;
const parameters = z.record(z.string(), setting).nullish();
export type MergekitSettings = z.infer<typeof parameters>;

const model = z.union([
  z.string(),
  z.strictObject({ model: z.strictObject({ path: z.string() }) }).transform((given) => given.model.path),
]);
const layers = z.tuple([z.number().int().min(0), z.number().int().min(0)]);
const sliceSource = z.strictObject({ model, layer_range: layers, parameters });
const slice = z.strictObject({
  sources: z.array(sliceSource).min(1),
  base_model: model.nullish(),
  parameters,
});

/** A merge as mergekit's YAML says it, as far as train-merge can make it. */
const file = z.strictObject({
  merge_method: z.string(),
  models: z.array(z.strictObject({ model, parameters })).min(1).nullish(),
  slices: z.array(slice).min(1).nullish(),
  base_model: model.nullish(),
  parameters,
  dtype: z.string().nullish(),
  out_dtype: z.string().nullish(),
  tokenizer_source: z.string().nullish(),
  tokenizer: z.strictObject({ source: z.string().nullish() }).nullish(),
});
export type MergekitFile = z.infer<typeof file>;
export type MergekitSource = z.infer<typeof sliceSource>;

/** Keys that mergekit knows and we do not, and why. */
const refused: Record<string, string> = {
  modules: "a merge of several modules is not supported; write `models`",
  chat_template: "chat templates are not written; the base's tokenizer files are copied",
  residual_weight: "it is not supported",
};

/** @throws UserError naming the key that is wrong, or is not supported */
export function readMergekit(value: unknown, where: string): MergekitFile {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new UserError(
      `${where}: not a mergekit file: it must hold keys and values, merge_method among them`,
    );
  const unsupported = Object.keys(value).find((key) => key in refused);
  if (unsupported !== undefined) throw new UserError(`${where}: ${unsupported}: ${refused[unsupported]}`);
  const parsed = file.safeParse(value);
  if (!parsed.success) {
    const issue = at(parsed.error.issues, 0);
    if (issue.code === "unrecognized_keys") {
      const key = [...issue.path, ...issue.keys].join(".");
      throw new UserError(`${where}: ${key}: train-merge does not know this key`);
    }
    throw new UserError(`${where}: ${issue.path.join(".") || "the file"}: ${issue.message}`);
  }
  const { models, slices, tokenizer_source, tokenizer } = parsed.data;
  if (Boolean(models) === Boolean(slices)) throw new UserError(`${where}: give either models or slices`);
  const wanted = tokenizer_source ?? tokenizer?.source;
  if (wanted !== undefined && wanted !== null && wanted !== "base")
    throw new UserError(
      `${where}: tokenizer source "${wanted}" is not supported, only "base": vocabularies are not put together`,
    );
  return parsed.data;
}

/**
 * What a setting is for a tensor: the first condition whose filter is part of the name, a gradient's
 * value at `t` (0 for the first layer of a slice, 1 for its last).
 */
export function settingAt(setting: MergekitSetting, name: string, t: number): MergekitScalar | undefined {
  if (Array.isArray(setting)) {
    if (setting.length === 0) return undefined;
    if (setting.every((entry) => typeof entry !== "object")) return gradientAt(setting, t);
    const hit = setting.find(
      ({ filter }) => filter === undefined || filter === null || filter === "*" || name.includes(filter),
    );
    return hit && settingAt(hit.value, name, t);
  }
  if (typeof setting === "object") return settingAt([setting], name, t);
  return setting;
}

/** Between two numbers of a gradient; words and flags are taken as they are. */
function gradientAt(values: readonly MergekitScalar[], t: number): MergekitScalar {
  const numbers = values.map(readNumber);
  const isNumber = (value: unknown): value is number => typeof value === "number" && !Number.isNaN(value);
  if (!numbers.every(isNumber)) return at(values, Math.floor(t * (values.length - 1)));
  const place = t * (numbers.length - 1);
  const from = Math.floor(place);
  const rest = place - from;
  return (1 - rest) * at(numbers, from) + rest * at(numbers, Math.min(numbers.length - 1, from + 1));
}
