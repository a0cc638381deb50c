import { at } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { UserError } from "../errors.js";
import type { MergekitFile, MergekitSettings, MergekitSource } from "./file.js";

/** A tensor's place in a stack of layers: "encoder.layer", 3, "output.dense.weight"; undefined outside of any. */
export function placeInStack(name: string): { stack: string; index: number; rest: string } | undefined {
  const [, stack, index, rest] = /^(.*?)\.(\d+)\.(.+)$/.exec(name) ?? [];
  if (stack === undefined || rest === undefined) return undefined;
  return { stack, index: Number(index), rest };
}

/** What a model would call a tensor of one of its stacks: with the prefix ("bert.") that it has before the others. */
export function storedAs({ actual }: Member, stack: string, name: string): string {
  const [own, stored] = [...actual].find(([canonical]) => canonical.startsWith(`${stack}.`)) ?? ["", ""];
  return stored.slice(0, stored.length - own.length) + name;
}

/** How many layers a model has: of its longest stack. */
const layerCount = ({ actual }: Member): number =>
  Math.max(0, ...[...actual.keys()].map((name) => (placeInStack(name)?.index ?? -1) + 1));

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
  { models, slices, base_model }: MergekitFile,
  open: (model: string) => Member,
): Slice[] {
  const base = base_model ?? undefined;
  if (slices)
    return slices.map(({ sources, base_model: own, parameters }) => ({
      sources,
      lead: at(sources, 0),
      base: own ?? base,
      settings: parameters,
    }));
  // A file has the one or the other (readMergekit).
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
  file: MergekitFile,
  open: (model: string) => Member,
  where: string,
): number {
  const count = lengthOf(lead);
  if (sources.some((source) => lengthOf(source) !== count))
    throw new UserError(`${where}: all sources of a slice must have the same number of layers`);
  for (const { model, layer_range } of sources) {
    const [from, to] = layer_range;
    const there = layerCount(open(model));
    if (to > there)
      throw new UserError(
        `${where}: ${model} has ${there} layers, ` +
          `${file.slices ? "layer_range asks for" : "the others have"} ${from} to ${to}`,
      );
  }
  return count;
}
