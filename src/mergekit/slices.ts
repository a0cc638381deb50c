import { at } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { isRecord } from "../checkpoint/files.js";
import type { Checkpoint } from "../checkpoint/folder.js";
import { isOptional } from "../checkpoint/names.js";
import { UserError } from "../errors.js";
import type { MergekitModule, MergekitSettings, MergekitSource } from "./file.js";

/** A tensor's place in a stack of layers: "encoder.layer", 3, "output.dense.weight". */
export interface StackPlace {
  readonly stack: string;
  readonly index: number;
  readonly rest: string;
}

/** Where a tensor stands in a stack; undefined outside of any. */
export function placeInStack(name: string): StackPlace | undefined {
  const [, stack, index, rest] = /^(.*?)\.(\d+)\.(.+)$/.exec(name) ?? [];
  if (stack === undefined || rest === undefined) return undefined;
  return { stack, index: Number(index), rest };
}

/** What a model would call a tensor of one of its stacks as layer `to`: as it calls the one that it has there. */
export function storedAs({ actual }: Member, { stack, rest }: StackPlace, to: number): string {
  for (const [canonical, stored] of actual) {
    const place = placeInStack(canonical);
    const own = placeInStack(stored);
    if (place && own && place.stack === stack && place.rest === rest) return `${own.stack}.${to}.${own.rest}`;
  }
  return `${stack}.${to}.${rest}`;
}

/** How many layers a stack of a model has. */
export const layersIn = ({ actual }: Member, stack: string): number =>
  Math.max(
    0,
    ...[...actual.keys()].map((name) => {
      const place = placeInStack(name);
      return place?.stack === stack ? place.index + 1 : 0;
    }),
  );

/** A model's stacks of layers, heads aside. */
const stacksOf = ({ actual }: Member): string[] => [
  ...new Set(
    [...actual.keys()].filter((name) => !isOptional(name)).flatMap((name) => placeInStack(name)?.stack ?? []),
  ),
];

/** How many layers a model has: of its longest stack. */
const layerCount = (model: Member): number =>
  Math.max(0, ...stacksOf(model).map((stack) => layersIn(model, stack)));

/** Keys of lists that may have an entry a layer ("layer_types", "attention_types"). */
const perLayer = /layer|block|attention|attn|mlp|rope/;

/** Keys of a config that count its layers. */
const stackCounts = ["num_hidden_layers", "num_layers", "n_layer", "n_layers"];

/**
 * What one config says of layers, where they were stacked anew.
 * @param configOf that config of each model
 */
function layerKeys(
  slices: readonly Slice[],
  configOf: (model: string) => Checkpoint["config"],
  countOf: (model: string) => number,
): Record<string, unknown> {
  const config = configOf(modelBehind(at(slices, 0)));
  const layers = slices.reduce((sum, { lead }) => sum + lengthOf(lead), 0);
  const counts = stackCounts.filter((key) => key in config).map((key) => [key, layers] as const);
  const lists = Object.keys(config).flatMap((key): [string, unknown[]][] => {
    if (!perLayer.test(key)) return [];
    const entries = slices.map(({ lead }) => {
      const list = configOf(lead.model)[key];
      const [from, to] = lead.layer_range;
      return Array.isArray(list) && list.length === countOf(lead.model) ? list.slice(from, to) : undefined;
    });
    if (!entries.every((list) => list !== undefined)) return [];
    return [[key, entries.flat()]];
  });
  return Object.fromEntries([...counts, ...lists]);
}

/** The model whose config a slice's result has. */
const modelBehind = ({ base, lead }: Slice): string => base ?? lead.model;

/**
 * What a config says of layers, where they were stacked anew: their number, and every list that has an entry a layer.
 * Of a model within another (`text_config`), where that counts the layers that are stacked.
 * @param open an opened model by the name that the file gives it
 */
export function layerSettings(
  slices: readonly Slice[],
  open: (model: string) => Member,
): Record<string, unknown> {
  const [first] = slices;
  if (!first) return {};
  const configOf = (model: string): Checkpoint["config"] => open(model).checkpoint.config;
  const countOf = (model: string): number => layerCount(open(model));
  const model = modelBehind(first);
  const nested = Object.entries(configOf(model)).flatMap(([key, inner]): [string, Checkpoint["config"]][] => {
    if (!isRecord(inner) || !stackCounts.some((count) => inner[count] === countOf(model))) return [];
    const innerOf = (one: string): Checkpoint["config"] => [configOf(one)[key]].find(isRecord) ?? {};
    return [[key, { ...inner, ...layerKeys(slices, innerOf, countOf) }]];
  });
  return { ...layerKeys(slices, configOf, countOf), ...Object.fromEntries(nested) };
}

/** Layers of the result that are made from the same sources. */
export interface Slice {
  readonly sources: readonly MergekitSource[];
  /** Its first source: it says how many layers there are, and what they are called. */
  readonly lead: MergekitSource;
  readonly base: string | undefined;
  readonly settings: MergekitSettings;
}

/** `models` as one slice of all layers; the base is one of the sources, as mergekit has it. */
export function slicesOf(
  { models, slices }: MergekitModule,
  base: string | undefined,
  open: (model: string) => Member,
): Slice[] {
  if (slices)
    return slices.map(({ sources, base_model: own, parameters }) => ({
      sources,
      lead: at(sources, 0),
      base: own ?? base,
      settings: parameters,
    }));
  // A module has the one or the other (readMergekit).
  const listed = (models ?? []).map(({ model, parameters }) => ({ model, parameters }));
  if (base !== undefined && !listed.some(({ model }) => model === base))
    listed.push({ model: base, parameters: undefined });
  const sources = listed.map(({ model, parameters }): MergekitSource => ({
    model,
    parameters,
    layer_range: [0, layerCount(open(model))],
  }));
  return [{ sources, lead: at(sources, 0), base, settings: undefined }];
}

const lengthOf = ({ layer_range: [from, to] }: MergekitSource): number => to - from;

/** How many layers a slice has. @throws UserError where a source has fewer, or others than the rest */
export function layersOf(
  { sources, lead }: Slice,
  { slices }: MergekitModule,
  open: (model: string) => Member,
  where: string,
): number {
  const count = lengthOf(lead);
  for (const {
    layer_range: [from, to],
  } of slices ? sources : [])
    if (to <= from)
      throw new UserError(
        `${where}: layer_range [${from}, ${to}] holds no layers: it must end above where it begins`,
      );
  if (sources.some((source) => lengthOf(source) !== count))
    throw new UserError(`${where}: all sources of a slice must have the same number of layers`);
  for (const { model, layer_range } of sources) {
    const [from, to] = layer_range;
    const stacks = stacksOf(open(model));
    if (slices && stacks.length > 1)
      throw new UserError(
        `${where}: ${model} has several stacks of layers (${stacks.slice(0, 3).join(", ")}), and slices do not say ` +
          "which is meant; write models instead of slices",
      );
    const there = layerCount(open(model));
    if (to > there)
      throw new UserError(
        `${where}: ${model} has ${there} layers, ` +
          `${slices ? "layer_range asks for" : "the others have"} ${from} to ${to}`,
      );
  }
  return count;
}
