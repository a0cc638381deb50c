import { z } from "zod";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import type { TokenRule } from "../checkpoint/joint-tables.js";
import type { TokenizerChoice } from "../checkpoint/joint-vocabulary.js";
import { readNumber } from "../methods/values.js";
import { nearest } from "../nearest.js";

/** A number, flag or word; several of the numbers are a gradient over the layers. */
const scalar = z.union([z.number(), z.boolean(), z.string()]);
export type MergekitScalar = z.infer<typeof scalar>;
const scalarOrGradient = z.union([scalar, z.array(scalar)]);
const conditional = z.strictObject({ value: scalarOrGradient, filter: z.string().nullish() });
const setting = z.union([scalarOrGradient, conditional, z.array(conditional)]);
export type MergekitSetting = z.infer<typeof setting>;
const parameters = z.record(z.string(), setting).nullish();
export type MergekitSettings = z.infer<typeof parameters>;

const path = z.union([
  z.string(),
  z
    .strictObject({ path: z.string(), revision: z.string().nullish() })
    .transform((given) => [given.path, given.revision].filter(Boolean).join("@")),
]);
/** "folder", "org/name@revision", "model+adapter"; or each of its parts by name. */
const model = z.union([
  z.string(),
  z
    .strictObject({
      model: path,
      lora: path.nullish(),
      override_architecture: z.string().nullish(),
      // What has one is a row of a table, and no model.
      kind: z.never().optional(),
    })
    .transform((given) => [given.model, given.lora].filter(Boolean).join("+")),
]);
const layers = z.tuple([z.number().int().min(0), z.number().int().min(0)]);
const sliceSource = z.strictObject({ model, layer_range: layers, parameters });
const slice = z.strictObject({
  sources: z.array(sliceSource).min(1),
  base_model: model.nullish(),
  parameters,
});
const models = z.array(z.strictObject({ model, parameters })).min(1).nullish();
const slices = z.array(slice).min(1).nullish();

const modelToken = z
  .strictObject({
    kind: z.literal("model_token"),
    model,
    token: z.string().nullish(),
    token_id: z.number().int().min(0).nullish(),
  })
  .refine(({ token, token_id: id }) => [token, id].filter((one) => (one ?? null) !== null).length === 1, {
    error: "give one of token and token_id",
  });
const tokenRule = z.strictObject({
  source: z.union([z.strictObject({ kind: z.literal("zero") }), modelToken, model]).nullish(),
  force: z.boolean().nullish(),
});
type ParsedRule = z.infer<typeof tokenRule>;

/** Whose tokens the result has, and where rows that a model lacks come from. */
const tokenizer = z.strictObject({
  source: model.nullish(),
  tokens: z.record(z.string(), tokenRule).nullish(),
  pad_to_multiple_of: z.number().int().min(1).nullish(),
});

/** A merge as mergekit's YAML says it, as far as train-merge can make it. */
const file = z.strictObject({
  name: z.string().nullish(),
  merge_method: z.string(),
  models,
  slices,
  modules: z.record(z.string(), z.strictObject({ models, slices, parameters })).nullish(),
  base_model: model.nullish(),
  parameters,
  dtype: z.string().nullish(),
  out_dtype: z.string().nullish(),
  tokenizer_source: model.nullish(),
  tokenizer: tokenizer.nullish(),
  chat_template: z.string().nullish(),
});
type ParsedFile = z.infer<typeof file>;

type OfModule = "modules" | "models" | "slices";
export interface MergekitFile extends Omit<ParsedFile, OfModule | "tokenizer" | "tokenizer_source"> {
  /** What is merged: parts of the models (`modules`), or all of them as one. */
  readonly modules: readonly MergekitModule[];
  /** Whose tokens the result has; `source` is "base", "union" or a model's name. */
  readonly tokenizer?: TokenizerChoice | undefined;
}
/** A part of the models (its text decoder, its vision tower) and how it is merged: `models`, or `slices`. */
export interface MergekitModule extends Pick<ParsedFile, "models" | "slices"> {
  /** "default" where it is all of them. */
  readonly name: string;
  /** They stand between a slice's and the file's. */
  readonly parameters?: MergekitSettings;
}
export type MergekitSource = z.infer<typeof sliceSource>;

const knownKeys = [
  ...Object.keys(file.shape),
  ...Object.keys(slice.shape),
  ...Object.keys(sliceSource.shape),
  ...Object.keys(tokenizer.shape),
  ...Object.keys(tokenRule.shape),
];

/** Where a file is wrong: its name, and the line of a key. */
export interface MergekitPlace {
  readonly where: string;
  lineOf(path: readonly (string | number)[]): number | undefined;
}

function inLine({ where }: MergekitPlace, line: number | undefined): string {
  if (line === undefined) return where;
  return `${where}: line ${line}`;
}

/** A value without one of its keys. */
function withoutKey(value: unknown, path: readonly PropertyKey[]): unknown {
  const copy = structuredClone(value);
  const holder = path.slice(0, -1).reduce<unknown>((inner, key) => Reflect.get(Object(inner), key), copy);
  Reflect.deleteProperty(Object(holder), at(path, -1));
  return copy;
}

interface KeyIssue {
  readonly path: readonly PropertyKey[];
  readonly keys: readonly string[];
}

/** A key that nobody knows: mergekit passes it over, and so do we, where it is no misspelled one. */
function passOver({ path: at, keys }: KeyIssue, place: MergekitPlace): string {
  const [key = ""] = keys;
  const whole = [...at, key].join(".");
  const where = inLine(place, place.lineOf(placesOf([...at, key])));
  // A key of another place is none here, and no misspelled one.
  const isAstray = knownKeys.includes(key) || key === "revision";
  const meant = !isAstray && nearest(key, knownKeys);
  if (meant) throw new UserError(`${where}: ${whole}: train-merge does not know this key${meant}`);
  return `${where}: ${whole} is passed over, as mergekit does`;
}

const placesOf = (path: readonly PropertyKey[]): (string | number)[] =>
  path.filter((key) => typeof key !== "symbol");

/** The one issue behind alternatives of which none fits: that of the one that it comes nearest to. */
function innermost(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue;
  const objects = issue.errors.find((issues) => issues.every(({ code }) => code === "unrecognized_keys"));
  const said = issue.errors.find((issues) => issues.every(({ code }) => code === "custom"));
  const [first] = objects ?? said ?? [];
  if (!first) return issue;
  return { ...innermost(first), path: [...issue.path, ...first.path] };
}

/**
 * Checks a mergekit file.
 * @returns what is passed over, a line each
 * @throws UserError naming the line and the key that is wrong, or is not supported
 */
export function readMergekit(
  value: unknown,
  place: MergekitPlace,
): { readonly file: MergekitFile; readonly notes: readonly string[] } {
  const { where } = place;
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new UserError(
      `${where}: not a mergekit file: it must hold keys and values, merge_method among them`,
    );
  const notes: string[] = [];
  let known: unknown = value;
  let parsed = file.safeParse(known);
  while (!parsed.success) {
    const issue = innermost(at(parsed.error.issues, 0));
    if (issue.code !== "unrecognized_keys") {
      const line = inLine(place, place.lineOf(placesOf(issue.path)));
      throw new UserError(`${line}: ${issue.path.join(".") || "the file"}: ${issue.message}`);
    }
    notes.push(passOver(issue, place));
    known = withoutKey(known, [...issue.path, at(issue.keys, 0)]);
    parsed = file.safeParse(known);
  }
  for (const key of ["dtype", "out_dtype"] as const)
    if (/^(torch\.)?float64$/.test(parsed.data[key] ?? ""))
      notes.push(`${inLine(place, place.lineOf([key]))}: ${key}: float64 is computed and written as float32`);
  return { file: mergeOf(parsed.data, place), notes };
}

/** What a file says to do: without `modules` its `models` or `slices` are one module. */
function mergeOf(
  {
    modules,
    models: ofAll,
    slices: ofSlices,
    tokenizer: block,
    tokenizer_source: source,
    ...given
  }: ParsedFile,
  place: MergekitPlace,
): MergekitFile {
  const { where } = place;
  const named = Object.entries(modules ?? { default: { models: ofAll, slices: ofSlices } });
  const isOne = [ofAll, ofSlices, modules].filter(Boolean).length === 1;
  if (!isOne || named.length === 0 || named.some(([, one]) => !one.models === !one.slices))
    throw new UserError(
      `${where}: give one of models, slices and modules (and in a module, models or slices)`,
    );
  if (block && source)
    throw new UserError(
      `${inLine(place, place.lineOf(["tokenizer_source"]))}: give one of tokenizer_source and tokenizer`,
    );
  const chosen = block ?? (source && { source });
  return {
    ...given,
    modules: named.map(([name, one]) => ({ name, ...one })),
    ...(chosen && { tokenizer: choiceOf(chosen) }),
  };
}

/** One token's rule in our words. */
function ruleOf({ source, force }: ParsedRule): TokenRule {
  const rule = { force: force ?? false };
  if (source === undefined || source === null) return rule;
  if (typeof source === "string") return { ...rule, source: { model: source } };
  if (source.kind === "zero") return { ...rule, source: "zero" };
  const { model: name, token, token_id: id } = source;
  return { ...rule, source: { model: name, token: token ?? undefined, id: id ?? undefined } };
}

/** mergekit's words for a tokenizer in ours. Without a source a block means all tokens together. */
function choiceOf({ source, tokens, pad_to_multiple_of: padTo }: z.infer<typeof tokenizer>): TokenizerChoice {
  const rules = Object.entries(tokens ?? {}).map(([token, rule]) => [token, ruleOf(rule)] as const);
  return { source: source ?? "union", tokens: Object.fromEntries(rules), padTo: padTo ?? undefined };
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

/** The model whose config and tokenizer the result gets. */
export function leadOf({ base_model: base, modules }: MergekitFile): string {
  const { models, slices } = at(modules, 0);
  const [slice] = slices ?? [];
  return slice?.base_model ?? base ?? slice?.sources[0]?.model ?? models?.[0]?.model ?? "";
}
