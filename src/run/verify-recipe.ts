/** How a finished merge was made, as its record says: from what, and where sums say it, with which weights. */
import type { z } from "zod";
import { lookUp } from "../at.js";
import { isRecord } from "../checkpoint/files.js";
import type { TokenizerChoice } from "../checkpoint/joint-vocabulary.js";
import { coefficientsFile, mergeFile, resultsFile, runFile } from "../folder/files.js";
import { UserError } from "../errors.js";
import { methods } from "../methods/index.js";
import { resolveValues } from "../methods/values.js";
import { readFamily } from "../inputs/prepare.js";
import type { PlannedAnew } from "../mergers/mergekit-file.js";
import { labelsOf } from "../mergers/models.js";
import type { NamedFolder } from "../mergers/members.js";
import { reworkOf } from "../verify/methods.js";
import type { Recipe } from "../verify/sample.js";
import { methodWeights, ofTaskVectors, type SumWeights, type Values } from "../verify/sums.js";

/** What the record of a merge says of where it came from. */
export interface MergeRecipe extends Recipe {
  readonly base: string | undefined;
  readonly sources: readonly NamedFolder[];
  /** What was done with unlike vocabularies. */
  readonly tokenizer?: "base" | TokenizerChoice | undefined;
  readonly why: string;
  /** The mergekit file that it was made by. */
  readonly file?: ({ readonly path: string } & PlannedAnew) | undefined;
}

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

const valuesOf = (recorded: unknown): Values => [recorded].find(isRecord) ?? {};

/** Why a method's numbers were not looked at. */
export const notReworked = (method: string): string =>
  `${method} is not worked out again: sums, task arithmetic, TIES, DARE and SLERP are`;

/** @throws UserError where a record says what no merge can have been made with */
function checkRecord(
  folder: string,
  { method, models, values }: z.infer<typeof mergeFile.schema>,
  labels: readonly string[],
): void {
  const where = mergeFile.in(folder);
  if (models.length === 0 || labels.length !== models.length)
    throw new UserError(`${where}: it has ${labels.length} labels for ${models.length} models`);
  const known = methods.find(({ name }) => name === method);
  if (!known) throw new UserError(`${where}: there is no method ${method}`);
  // Defaults that a variant does not look at are recorded too.
  const { unread: _, ...all } = known;
  resolveValues(all, valuesOf(values), models.length, (key) => `${where}: values.${key}`);
}

async function mergedRecipe(folder: string): Promise<MergeRecipe | undefined> {
  const record = await mergeFile.read(folder);
  if (!record) return undefined;
  const { method, base, models, from, tokenizer, labels = labelsOf(models) } = record;
  const values = valuesOf(record.values);
  const { places = {}, seed = 0 } = record;
  if (from !== undefined) {
    const lie = [from, ...Object.values(places)].map((path) => ({ label: path, folder: path }));
    const several = "it was made by several merges of a mergekit file";
    return { base, sources: lie, weightsOf: undefined, why: several, file: { path: from, places, seed } };
  }
  checkRecord(folder, record, labels);
  const sources = models.map((path, i): NamedFolder => ({
    label: record.labels?.[i] ?? path,
    folder: path,
    on: base,
  }));
  const why = notReworked(method);
  const weights = methodWeights(method, values, models.length);
  const rework = reworkOf(method, values, models.length);
  return {
    base,
    sources,
    tokenizer,
    weightsOf: weights && (() => weights),
    rework: rework && ((opened) => rework(values, { ...opened, labels })),
    why,
  };
}

/** How a merge was made; undefined where a folder has no record of one. */
export const recipeOfMerge = async (folder: string): Promise<MergeRecipe | undefined> =>
  (await trainedRecipe(folder)) ?? mergedRecipe(folder);
