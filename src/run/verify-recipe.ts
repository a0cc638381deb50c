/** How a finished merge was made, as its record says: from what, and where sums say it, with which weights. */
import { lookUp } from "../at.js";
import { isRecord } from "../checkpoint/files.js";
import type { TokenizerChoice } from "../checkpoint/joint-vocabulary.js";
import { coefficientsFile, mergeFile, resultsFile, runFile } from "../folder/files.js";
import { readFamily } from "../inputs/prepare.js";
import type { NamedFolder } from "../mergers/members.js";

/** What the record of a merge says of where it came from. */
export interface MergeRecipe {
  readonly base: string | undefined;
  readonly sources: readonly NamedFolder[];
  /** What was done with unlike vocabularies. */
  readonly tokenizer?: "base" | TokenizerChoice | undefined;
  /** How each tensor is made, by its name in the base's file; undefined where no sums say it. */
  readonly weightsOf: ((stored: string) => SumWeights | undefined) | undefined;
  readonly why: string;
}

/** base · b + Σ w_i · input_i. */
export interface SumWeights {
  readonly base: number;
  readonly inputs: readonly number[];
}

/** base + Σ c_i (input_i − base). */
const ofTaskVectors = (coefficients: readonly number[]): SumWeights => ({
  base: 1 - coefficients.reduce((sum, c) => sum + c, 0),
  inputs: coefficients,
});

/** A trained merge: the coefficients of every tensor, by the base's own names. */
async function trainedRecipe(folder: string): Promise<MergeRecipe | undefined> {
  const places = (await runFile.read(folder))?.places;
  const table = await coefficientsFile.read(folder);
  if (!places) return undefined;
  const sources = places.sources.map(({ label, folder: from }) => ({ label, folder: from, on: places.base }));
  const { treat = "none", pack = "f32" } = (await resultsFile.read(folder))?.settings ?? {};
  const isPlain = treat === "none" && pack !== "sparse";
  if (!table || !isPlain)
    return {
      base: places.base,
      sources,
      weightsOf: undefined,
      why: "its task vectors were treated, or no table says it",
    };
  const { canonical } = await readFamily(places.base);
  const layerOf = new Map(table.layers.flatMap(({ id, names }) => names.map((name) => [name, id] as const)));
  const coefficients = new Map(table.entries.map((one) => [`${one.layer}\n${one.task}`, one.coefficient]));
  const weightsOf = (stored: string): SumWeights => {
    const layer = layerOf.get(canonical(stored));
    // A tensor that no expert changed is in no layer.
    if (layer === undefined) return ofTaskVectors(sources.map(() => 0));
    return ofTaskVectors(sources.map(({ label }) => lookUp(coefficients, `${layer}\n${label}`)));
  };
  return { base: places.base, sources, weightsOf, why: "" };
}

type Values = Readonly<Record<string, unknown>>;
const numbersIn = (values: Values, key: string, count: number): number[] => {
  const given = values[key];
  if (Array.isArray(given)) return given.map(Number);
  return Array.from({ length: count }, () => Number(given ?? 1));
};

const valuesOf = (recorded: unknown): Values => [recorded].find(isRecord) ?? {};

/** What a method without training does, where sums say it. */
function methodWeights(method: string, values: Values, count: number): SumWeights | undefined {
  const drops = "dareP" in values && numbersIn(values, "dareP", count).some((p) => p > 0);
  if (drops) return undefined;
  const weight = numbersIn(values, "weight", count);
  const total = weight.reduce((sum, one) => sum + one, 0);
  let divisor = 1;
  if (values["normalize"] === true) divisor = total;
  const shares = weight.map((one) => one / divisor);
  if (method === "average") return { base: 0, inputs: weight.map(() => 1 / count) };
  if (method === "linear") return { base: 0, inputs: shares };
  if (method === "task-arithmetic") return ofTaskVectors(shares.map((one) => one * Number(values["lambda"])));
  return undefined;
}

async function mergedRecipe(folder: string): Promise<MergeRecipe | undefined> {
  const record = await mergeFile.read(folder);
  if (!record) return undefined;
  const { method, base, models, values, from, tokenizer } = record;
  const sources = models.map((path): NamedFolder => ({ label: path, folder: path, on: base }));
  const why = `${method} is not worked out again, only linear merges and task arithmetic are`;
  if (from !== undefined)
    return { base, sources, tokenizer, weightsOf: undefined, why: "it was made by a mergekit file" };
  const weights = methodWeights(method, valuesOf(values), models.length);
  return { base, sources, tokenizer, weightsOf: weights && (() => weights), why };
}

/** How a merge was made; undefined where a folder has no record of one. */
export const recipeOfMerge = async (folder: string): Promise<MergeRecipe | undefined> =>
  (await trainedRecipe(folder)) ?? mergedRecipe(folder);
