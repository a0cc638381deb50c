import { existsSync } from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { at } from "../at.js";
import { timeText } from "../report/caption.js";
import { digest, writeText } from "../checkpoint/files.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { Stopped, UserError } from "../errors.js";
import { evaluateReferences } from "../evaluate/baselines.js";
import { compareFile, methodFile, fileNames, resultsFile, type MethodResult } from "../folder/files.js";
import { openOutput } from "../folder/output.js";
import { writeReport } from "../folder/report.js";
import { foldersOf, recipeOf, type Recipe } from "../inputs/locate.js";
import { mergeContextOf, openInputs } from "../inputs/open.js";
import { version } from "../package.js";
import type { InputHash } from "../report/card.js";
import { comparisonTable, type Timed } from "../report/comparison.js";
import { toMarkdown } from "../report/table.js";
import { mean, type ResultRow } from "../report/rows.js";
import {
  candidatesOf,
  modelFolder,
  runCandidate,
  seenBy,
  settingsOf,
  type Candidate,
  type CompareContext,
} from "./candidates.js";
import { heldOutHashes, measureHeldOut } from "./held-out.js";

export interface CompareOptions extends MergeOptions {
  /** Names, or all; or candidates of one's own. */
  readonly methods: readonly (string | Candidate)[] | "all";
  /** Try each method's grid on the validation examples; else its customary defaults. */
  readonly search: boolean;
  /** Keep every method's merged model, in models/<method>. */
  readonly keep: boolean;
  readonly threads?: number | undefined;
  /** Tasks that have no part in the merge, and are tested all the same. */
  readonly heldOut?: readonly string[] | undefined;
  /** Settings that the user gave: AdaMerging's own defaults give way to them. */
  readonly given: Readonly<Record<string, unknown>>;
}

export interface Compared {
  readonly out: string;
  readonly rows: readonly ResultRow[];
  readonly times: readonly Timed[];
  /** By method, the parameters that it was merged with. */
  readonly values: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly synthetic: boolean;
  readonly finished: boolean;
}

/** What was found before: by this name, or (where no model has to be kept) by another for what was trained alike. */
async function savedResult(
  { out, keep }: Comparison,
  name: string,
  identity: string,
): Promise<MethodResult | undefined> {
  const folder = join(out, fileNames.methods);
  const others = keep ? [] : (await readdir(folder)).filter((file) => file.endsWith(".json"));
  for (const other of [name, ...others.map((file) => file.slice(0, -".json".length))]) {
    const saved = await methodFile(other).readIfSound(folder);
    if (saved?.identity === identity && (!keep || existsSync(modelFolder({ out }, name))))
      return { ...saved, rows: saved.rows.map((row) => ({ ...row, method: name })) };
  }
  return undefined;
}

/** A comparison under way. */
interface Comparison extends CompareContext {
  readonly keep: boolean;
  readonly heldOut?: readonly string[] | undefined;
  /** What all results depend on: version, settings of all, the inputs' hashes. */
  readonly shared: Readonly<Record<string, unknown>>;
  readonly hashes: readonly InputHash[];
}

/** By what a candidate's result is known again: everything that its numbers depend on. */
function resultIdentity(context: Comparison, candidate: Candidate): string {
  const { search, given, heldOut, shared, hashes } = context;
  const common = { version, shared, ...(heldOut && { heldOut }), hashes };
  if ("method" in candidate) {
    const { name, given: values, grid } = candidate;
    return digest({ ...common, name, search, ...(values && { values }), ...(grid && { grid }) });
  }
  const settings = settingsOf(candidate, context);
  return digest({ ...common, given, settings, ...("tree" in candidate && { tree: candidate.tree }) });
}

/** A candidate's result: found from before, or made now; undefined where it was asked to stop. */
async function resultOf(context: Comparison, candidate: Candidate): Promise<MethodResult | undefined> {
  const { name } = candidate;
  const identity = resultIdentity(context, candidate);
  const saved = await savedResult(context, name, identity);
  if (saved) return saved;
  const { out, heldOut, keep, options } = context;
  const folder = join(out, fileNames.methods);
  const other = await methodFile(name).readIfSound(folder);
  if (other && other.identity !== identity && !options.overwrite)
    throw new UserError(
      `--out ${out}: it holds a result of ${name} by other settings, inputs (models, data, tasks.json) or another ` +
        "version; " +
        "--overwrite replaces it, or choose another folder",
    );
  await rm(methodFile(name).in(folder), { force: true });
  const made = await runCandidate(context, candidate, identity);
  if (!made) return undefined;
  const rows = [...made.rows];
  if (heldOut?.length) rows.push(...(await measureHeldOut(context, name, heldOut)));
  if (!keep) await rm(modelFolder({ out }, name), { recursive: true, force: true });
  const result = { identity, ...made, rows };
  await methodFile(name).write(folder, result);
  return result;
}

/** The candidates that are asked for. */
function chosenCandidates(
  asked: CompareOptions["methods"],
  models: number,
  note: MergeHooks["note"],
): readonly Candidate[] {
  if (asked === "all") return candidatesOf("all", models, note);
  return asked.flatMap((one) => (typeof one === "string" ? candidatesOf([one], models, note) : [one]));
}

/** What a candidate is made of that takes time: steps of training, or 0. */
function stepsOf(candidate: Candidate, context: CompareContext): number {
  if ("method" in candidate) return 0;
  const nodes = "tree" in candidate ? context.options.tasks.length - 1 : 1;
  const { steps = context.options.steps } = settingsOf(candidate, context);
  return Number(steps) * nodes;
}

/** Of the methods that are done, what each took and how many steps it had. */
interface Taken {
  readonly seconds: number;
  readonly steps: number;
}

/** Says about how long the rest takes, by what the methods so far took; "" where none of a kind is done. */
function restText(taken: readonly Taken[], left: readonly number[]): string {
  const trained = taken.filter(({ steps }) => steps > 0);
  const plain = taken.filter(({ steps }) => steps === 0);
  const steps = left.reduce((sum, one) => sum + one, 0);
  const others = left.filter((one) => one === 0).length;
  if ((steps > 0 && trained.length === 0) || (others > 0 && plain.length === 0) || left.length === 0)
    return "";
  const sum = (some: readonly Taken[], key: keyof Taken) => some.reduce((all, one) => all + one[key], 0);
  const seconds =
    (steps * sum(trained, "seconds")) / Math.max(1, sum(trained, "steps")) +
    (others * sum(plain, "seconds")) / Math.max(1, plain.length);
  return `, about ${timeText(seconds)} left`;
}

/** What a method came to, how many are done, and about how long the rest takes. */
function doneText(
  { rows, seconds }: MethodResult,
  name: string,
  taken: readonly Taken[],
  steps: readonly number[],
): string {
  const average = mean(rows.map(({ value }) => value));
  return (
    `${name}: ${(100 * average).toFixed(1)} % on average, ${seconds.total.toFixed(1)} s; ` +
    `${taken.length} of ${steps.length} methods${restText(taken, steps.slice(taken.length))}`
  );
}

/** What every method took, and what it saw. */
const timesOf = (
  found: ReadonlyMap<string, MethodResult>,
  chosen: readonly Candidate[],
  settings: Pick<CompareContext, "options" | "given" | "search">,
): Timed[] =>
  chosen.flatMap((candidate) => {
    const result = found.get(candidate.name);
    return result ? [{ method: candidate.name, seen: seenBy(candidate, settings), ...result.seconds }] : [];
  });

/** Makes the output folder ready. What is finished in it is guarded method by method. */
async function openComparison(
  out: string,
  recipe: Recipe,
  chosen: readonly Candidate[],
  overwrite: boolean,
): Promise<void> {
  await openOutput(out, foldersOf(recipe.locations), overwrite || compareFile.exists(out));
  await mkdir(join(out, fileNames.methods), { recursive: true });
  await compareFile.write(out, { version, methods: chosen.map(({ name }) => name) });
}

/** What a finished comparison leaves beside its methods' own results: the table, the page, and results.json. */
async function writeComparison(
  { out, rows, times, synthetic }: Compared,
  found: ReadonlyMap<string, MethodResult>,
  made: { readonly settings: Readonly<Record<string, unknown>>; readonly inputs: readonly InputHash[] },
): Promise<void> {
  await writeText(join(out, fileNames.table), `${toMarkdown(comparisonTable(rows, times))}\n`);
  const searched = [...found].flatMap(([name, one]) => (one.search ? [[name, one.search] as const] : []));
  await resultsFile.write(out, { synthetic, rows, search: Object.fromEntries(searched), times, ...made });
  await writeReport(out);
}

/**
 * Merges the same experts with one method after the other, each with its grid searched on the
 * validation examples, and measures what each wrote on the test examples. A stopped comparison goes on
 * where it was.
 */
export async function runComparison(options: CompareOptions, hooks: MergeHooks): Promise<Compared> {
  const { methods: asked, search, threads, given, keep, heldOut, ...plain } = options;
  const chosen = chosenCandidates(asked, options.tasks.length, hooks.note);
  const recipe = await recipeOf(options);
  const out = options.out ?? join("merged", `compare-${recipe.name}`);
  await hooks.begun?.(out);
  await openComparison(out, recipe, chosen, options.overwrite);
  const inputs = await openInputs({ ...options, overwrite: true }, recipe, out, hooks);
  const found = new Map<string, MethodResult>();
  const references: ResultRow[] = [];
  const compared = (finished: boolean): Compared => ({
    out,
    rows: [...references, ...[...found.values()].flatMap(({ rows }) => rows)],
    times: timesOf(found, chosen, { options: plain, given, search }),
    values: Object.fromEntries([...found].map(([name, { values }]) => [name, values])),
    synthetic: inputs.tasks.some((task) => task.synthetic),
    finished,
  });
  try {
    // Which methods, how they are run and where they live changes no number of any; what training does is
    // nothing to the rest.
    const { seed, valPerTask, maxLength, dtype, tasks, split, score } = options;
    const { engine } = inputs.plan;
    const shared = { tasks, seed, valPerTask, maxLength, dtype, split, score, engine };
    const hashes = [...inputs.hashes, ...(await heldOutHashes(inputs, plain, heldOut ?? []))];
    const common = { out, inputs, recipe, options: plain, search, threads, given, hooks };
    const context: Comparison = { ...common, keep, heldOut, shared, hashes };
    references.push(
      ...(await evaluateReferences(mergeContextOf(inputs), inputs.tasks, { seed, progress: () => {} })),
    );
    const steps = chosen.map((candidate) => stepsOf(candidate, context));
    const taken: Taken[] = [];
    for (const [i, candidate] of chosen.entries()) {
      if (hooks.stopping()) return compared(false);
      hooks.progress(candidate.name, i, chosen.length);
      const result = await resultOf(context, candidate);
      if (!result) return compared(false);
      found.set(candidate.name, result);
      taken.push({ seconds: result.seconds.total, steps: at(steps, i) });
      hooks.note(doneText(result, candidate.name, taken, steps));
    }
    const done = compared(true);
    await writeComparison(done, found, { settings: { ...shared, ...given }, inputs: hashes });
    return done;
  } catch (error) {
    if (error instanceof Stopped) return compared(false);
    throw error;
  } finally {
    await inputs.dispose();
  }
}
