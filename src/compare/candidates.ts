import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { at } from "../at.js";
import { writeText } from "../checkpoint/files.js";
import { presetOf } from "../config/load.js";
import { trainedPresets } from "../config/trained.js";
import { UserError } from "../errors.js";
import { methods } from "../methods/index.js";
import { acceptedParameters } from "../methods/pipeline.js";
import type { Method } from "../methods/types.js";
import { resolveValues } from "../methods/values.js";
import { nearest } from "../nearest.js";
import { fileNames, resultsFile, runFile, stateFile, type MethodResult } from "../folder/files.js";
import { keepChatTemplate } from "../checkpoint/chat-template.js";
import { writeMerge } from "../folder/merge.js";
import { evaluateFolder } from "../run/evaluate.js";
import { mergeTree } from "../treerun/run.js";
import type { Inputs } from "../inputs/open.js";
import type { Recipe } from "../inputs/locate.js";
import { trainMerge } from "../run/merge.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { bestPoint } from "../evaluate/baselines.js";
import type { Seen } from "../report/comparison.js";
import { dataSeen } from "../train/passes.js";
import { searchGrid, type GridPoint } from "./search.js";
import { statisticsFor } from "../mergers/statistics.js";
import { plainTree, type TreeOptions } from "../treerun/plan.js";

/** A method that trains nothing; parameters that are not given are searched, or the customary ones. */
interface Plain {
  readonly method: Method;
  readonly given?: Readonly<Record<string, unknown>> | undefined;
  /** What a search tries beside the method's own grid. */
  readonly grid?: Method["grid"];
}

/** A way to merge the experts, with a row of its own in a comparison. */
export type Candidate = { readonly name: string } & (
  | Plain
  /** Trained coefficients: what is other than in SuperMerge. */
  | { readonly settings: Readonly<Record<string, unknown>> }
  | { readonly tree: Partial<TreeOptions>; readonly settings?: Readonly<Record<string, unknown>> | undefined }
);

/** A candidate that is trained. */
export type TrainedCandidate = Exclude<Candidate, Plain>;

function takesModels({ inputs: [least, most] = [1, Infinity] }: Method, models: number): boolean {
  return models >= least && models <= most;
}

/** What `compare` knows by name. */
export const candidates: readonly Candidate[] = [
  ...methods.map((method) => ({ name: method.name, method })),
  ...Object.entries(trainedPresets).map(([name, { settings }]) => ({ name, settings })),
  { name: "hierarchical", tree: {} },
];

/** Candidates by name, without those that do not merge so many models. @throws UserError for an unknown name */
export function candidatesOf(
  asked: readonly string[] | "all",
  models: number,
  note: (message: string) => void,
): Candidate[] {
  const byName = new Map(candidates.map((one) => [one.name, one]));
  const chosen = asked === "all" ? candidates : asked.map((name) => candidateNamed(name, byName));
  const unfit = (one: Candidate) => "method" in one && !takesModels(one.method, models);
  const left = chosen.filter(unfit);
  if (left.length)
    note(`left out: ${left.map(({ name }) => name).join(", ")}, which do not merge ${models} models`);
  return chosen.filter((one) => !unfit(one));
}

function candidateNamed(name: string, byName: ReadonlyMap<string, Candidate>): Candidate {
  const found = byName.get(name);
  if (found) return found;
  throw new UserError(
    `--methods ${name}: there is no such method${nearest(name, byName.keys())}; there are ` +
      [...byName.keys()].join(", "),
  );
}

/** What all candidates are run with. */
export interface CompareContext {
  readonly out: string;
  readonly inputs: Inputs;
  readonly recipe: Recipe;
  readonly options: MergeOptions;
  /** Try each method's grid on the validation examples; else its customary defaults. */
  readonly search: boolean;
  readonly threads?: number | undefined;
  /** Settings that the user gave: a candidate's own defaults give way to them, what makes it what it is does not. */
  readonly given: Readonly<Record<string, unknown>>;
  readonly hooks: MergeHooks;
}

/** What a candidate came to: a model in its folder, and its rows. */
export type Made = Omit<MethodResult, "identity">;

/**
 * A training's settings that are other than all candidates' own: what is trained alike has the same,
 * whatever it is called.
 */
export function settingsOf(
  { settings: changes = {} }: TrainedCandidate,
  { options, given }: Pick<CompareContext, "options" | "given">,
): Readonly<Record<string, unknown>> {
  const all = { ...presetOf(changes["method"], changes["variant"]), ...given, ...changes };
  const common = new Map<string, unknown>(Object.entries(options));
  return Object.fromEntries(
    Object.entries(all).filter(([key, value]) => !isDeepStrictEqual(common.get(key), value)),
  );
}

/** Whether a grid is searched: some of its parameters were not given. */
const isSearched = (
  search: boolean,
  grid: Method["grid"],
  given: Readonly<Record<string, unknown>>,
): boolean => search && Object.keys(grid ?? {}).some((key) => !(key in given));

/** What of the data a candidate sees: a search scores the validation examples. */
export function seenBy(
  candidate: Candidate,
  context: Pick<CompareContext, "options" | "given" | "search">,
): Seen {
  if ("method" in candidate) {
    const grid = { ...candidate.method.grid, ...candidate.grid };
    if (isSearched(context.search, grid, candidate.given ?? {})) return "labels, to search";
    return candidate.method.needs ? "inputs" : "nothing";
  }
  const { loss, adaptOn } = { ...context.options, ...settingsOf(candidate, context) };
  return dataSeen(loss, adaptOn);
}

/** Where a candidate's model is written. */
export const modelFolder = ({ out }: Pick<CompareContext, "out">, name: string): string =>
  join(out, fileNames.models, name);

/** Runs a candidate; undefined where it was asked to stop. @param identity of all that its numbers depend on */
export function runCandidate(
  context: CompareContext,
  candidate: Candidate,
  identity: string,
): Promise<Made | undefined> {
  return "method" in candidate ? tryMethod(context, candidate) : tryTraining(context, candidate, identity);
}

/** Merges with a method that trains nothing, and measures what it wrote. */
async function tryMethod(context: CompareContext, candidate: Candidate & Plain): Promise<Made> {
  const method = { ...candidate.method, grid: { ...candidate.method.grid, ...candidate.grid } };
  const { inputs, options, hooks } = context;
  const started = performance.now();
  const { family, head, heads, data, plan, plain: model, tasks, hashes } = inputs;
  const given = { ...("seed" in acceptedParameters(method) && { seed: options.seed }), ...candidate.given };
  const subjects = family.experts.map((member, i) => ({ member, task: at(tasks, i) }));
  const merge = {
    base: family.base,
    inputs: family.experts,
    dtype: options.dtype,
    shardSize: options.shardSize,
    threads: context.threads,
    statistics: await statisticsFor(method, { model, hashes, subjects }, hooks),
    reads: model.parameters,
    heads: { members: heads, names: head },
  };
  const found: { search?: GridPoint[] } = {};
  if (isSearched(context.search, method.grid, given))
    found.search = await searchGrid(join(context.out, "trying"), { method, given, merge }, inputs, hooks);
  const best = found.search && bestPoint(found.search).values;
  const values = resolveValues(method, { ...given, ...best }, family.experts.length);
  const folder = modelFolder(context, candidate.name);
  const before = performance.now();
  await writeMerge(folder, { ...merge, method, values }, { ...hooks, note: () => {} });
  await keepChatTemplate(folder, inputs.chatTemplate);
  const seconds = { merge: (performance.now() - before) / 1000, total: (performance.now() - started) / 1000 };
  const { rows } = await evaluateFolder(
    { ...options, folder, base: inputs.locations.base, data, placement: plan.chosen },
    candidate.name,
  );
  return { rows, seconds, values, ...found };
}

/** Whether the state in a folder was left by a training of this identity; if not, the folder is emptied. */
async function ownState(context: CompareContext, name: string, identity: string): Promise<boolean> {
  const mark = join(context.out, fileNames.methods, `${name}.started`);
  const out = modelFolder(context, name);
  const isOwn = existsSync(mark) && (await readFile(mark, "utf8")) === identity;
  if (!isOwn) await rm(out, { recursive: true, force: true });
  await writeText(mark, identity);
  return stateFile.exists(out) && !resultsFile.exists(out);
}

/** Trains coefficients, flat or in a tree, and measures what was written; undefined where it was asked to stop. */
async function tryTraining(
  context: CompareContext,
  candidate: TrainedCandidate,
  identity: string,
): Promise<Made | undefined> {
  const { options, hooks, recipe } = context;
  const own = settingsOf(candidate, context);
  const out = modelFolder(context, candidate.name);
  const settings: MergeOptions = { ...options, ...own, out, baselines: false, overwrite: true };
  const started = performance.now();
  const resume = await ownState(context, candidate.name, identity);
  const quiet = { ...hooks, note: () => {} };
  const inTree = { ...quiet, planned: () => {}, nodesDone: () => {} };
  const made =
    "tree" in candidate
      ? await mergeTree(settings, { ...plainTree, ...candidate.tree }, inTree)
      : await trainMerge({ ...settings, resume }, quiet, recipe);
  if (!made.finished) return undefined;
  const total = (performance.now() - started) / 1000;
  const { seconds = {} } = (await runFile.read(out)) ?? {};
  // The merge itself is the last of its rows, whatever stands beside it.
  const last = at(made.rows, -1).method;
  return {
    rows: made.rows
      .filter(({ method }) => method === last)
      .map((row) => ({ ...row, method: candidate.name })),
    seconds: { total, merge: seconds["train"] ?? seconds["total"] ?? total },
    values: own,
  };
}
