/**
 * The commands as functions: what is needed is given, and everything else has the default that the command line has.
 * Settings are checked as the command line checks them; an unknown one is refused.
 */
import type { MergeHooks, MergeOptions, MergeResult } from "./config/options.js";
import { loadSettings } from "./config/load.js";
import { settings } from "./config/settings.js";
import { type Settings } from "./config/schema.js";
import type { Compared, CompareOptions } from "./compare/compare.js";
import { UsageError } from "./errors.js";
import { fetchNamed } from "./inputs/locate.js";
import type { ModelsMerge } from "./mergers/models.js";
import type { FileMerge } from "./mergers/mergekit-file.js";
import { nearest } from "./nearest.js";
import { methods } from "./methods/index.js";
import type { TreeHooks } from "./treerun/run.js";
import { plainTree, type TreeOptions } from "./treerun/plan.js";

/** Settings that may be left out: then they are as `train-merge train --help` says. */
export type GivenSettings = { readonly [K in keyof Settings]?: Settings[K] | undefined };

/** Settings of a merge by training: its tasks, where models and data are, and what is to differ from the defaults. */
export type GivenMerge = GivenSettings &
  Pick<Settings, "tasks"> &
  Pick<MergeOptions, "resume" | "tensorboard" | "baselines">;

/** What a program is told while a run lasts, and whether it asks it to stop. Whatever is left out is not told. */
export type GivenHooks = Partial<MergeHooks>;

const silent: MergeHooks = { note() {}, progress() {}, step() {}, stopping: () => false };

/** What is no setting, but an option of a run. */
const runOptions = ["resume", "tensorboard", "baselines"];

/** Fills in and checks settings; a model of the hub is fetched. @throws UsageError for an unknown or a wrong one */
async function optionsOf(given: GivenMerge, hooks: MergeHooks): Promise<MergeOptions> {
  const known = [...Object.keys(settings), ...runOptions];
  for (const key of Object.keys(given))
    if (!known.includes(key)) throw new UsageError(`there is no setting "${key}"${nearest(key, known)}`);
  const { resume, tensorboard, baselines } = given;
  const chosen = await loadSettings({ ...given });
  return { ...(await fetchNamed(chosen, hooks)), resume, tensorboard, baselines };
}

/**
 * Merges experts by training a coefficient for each layer and expert, and measures the result: `train-merge train`.
 * @throws UserError naming what is wrong, and how to mend it
 */
export async function mergeByTraining(given: GivenMerge, hooks: GivenHooks = {}): Promise<MergeResult> {
  const told = { ...silent, ...hooks };
  const { trainMerge } = await import("./run/merge.js");
  return trainMerge(await optionsOf(given, told), told);
}

/** What a comparison is given beside a merge's settings: by itself, it compares all methods without a search. */
export type GivenComparison = GivenMerge & Partial<Omit<CompareOptions, keyof MergeOptions | "given">>;

/** Merges the same experts with many methods: `train-merge compare`. */
export async function compareMethods(given: GivenComparison, hooks: GivenHooks = {}): Promise<Compared> {
  const told = { ...silent, ...hooks };
  const { methods: asked = "all", search = false, keep = false, threads, heldOut, ...plain } = given;
  const { runComparison } = await import("./compare/compare.js");
  const options = await optionsOf(plain, told);
  return runComparison({ ...options, methods: asked, search, keep, threads, heldOut, given: plain }, told);
}

/** Merges experts in a tree of merges: `train-merge tree`. Without options, pairs of the most similar. */
export async function mergeInTree(
  given: GivenMerge,
  tree: Partial<TreeOptions> = {},
  hooks: Partial<TreeHooks> = {},
): Promise<MergeResult> {
  const told: TreeHooks = { ...silent, planned() {}, nodesDone() {}, ...hooks };
  const { mergeTree } = await import("./treerun/run.js");
  return mergeTree(await optionsOf(given, told), { ...plainTree, ...tree }, told);
}

/** Adds an expert to a finished merge: `train-merge add`. */
export async function addExpert(
  added: { readonly expert: string; readonly to: string; readonly task?: string | undefined },
  given: GivenSettings = {},
  hooks: GivenHooks = {},
): Promise<MergeResult> {
  const told = { ...silent, ...hooks };
  const { addToMerge } = await import("./run/add.js");
  // The tasks are those of the merge: any name stands in.
  return addToMerge(added, await optionsOf({ ...given, tasks: ["all"] }, told), told);
}

/** What a merge without training is given: its method by name, its parameters by theirs. */
export type GivenModels = Omit<ModelsMerge, "method" | "given" | "dtype" | "shardSize"> &
  Partial<Pick<ModelsMerge, "given" | "dtype" | "shardSize">> & { readonly method: string };

const largestShard = 5e9;

/** Merges models without training: `train-merge merge --method`. */
export async function mergeModels(given: GivenModels, hooks: GivenHooks = {}): Promise<void> {
  const { method: name, given: parameters = {}, dtype = "auto", shardSize = largestShard, ...rest } = given;
  const method = methods.find((one) => one.name === name);
  if (!method) {
    const known = methods.map((one) => one.name);
    throw new UsageError(`there is no method "${name}"${nearest(name, known)}`);
  }
  const { mergeFolders } = await import("./mergers/models.js");
  await mergeFolders({ ...rest, method, given: parameters, dtype, shardSize }, { ...silent, ...hooks });
}

/** Merges by a mergekit file: `train-merge merge FILE`. */
export async function mergeByFile(
  path: string,
  merge: Pick<FileMerge, "out"> & Partial<FileMerge>,
  hooks: GivenHooks = {},
): Promise<void> {
  const { mergeByMergekitFile } = await import("./mergers/mergekit-file.js");
  await mergeByMergekitFile(
    path,
    { shardSize: largestShard, ...merge, seed: merge.seed ?? 0 },
    { ...silent, ...hooks },
  );
}
