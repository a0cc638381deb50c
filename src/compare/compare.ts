import { existsSync } from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import { openExpert } from "../checkpoint/family.js";
import { readJson, sha256, writeText, digest } from "../checkpoint/files.js";
import { Stopped } from "../errors.js";
import { evaluateReferences } from "../evaluate/baselines.js";
import { version } from "../package.js";
import { comparisonTable, type Timed } from "../report/comparison.js";
import { resultRow, type ResultRow } from "../report/rows.js";
import type { InputHash } from "../report/card.js";
import { toMarkdown } from "../report/formats.js";
import { loadTasks, pickTasks } from "../tasks/registry.js";
import { loadTaskData } from "../tasks/split.js";
import {
  candidatesOf,
  modelFolder,
  runContender,
  settingsOf,
  type CompareContext,
  type Candidate,
} from "./candidates.js";
import { evaluateFolder } from "../run/evaluate.js";
import { openInputs, mergeContextOf, recipeOf, type Inputs } from "../inputs/open.js";
import { locate } from "../inputs/locate.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { openOutput, writeHead } from "../folder/output.js";
import { readFamily } from "../inputs/prepare.js";
import { hashOf } from "../inputs/record.js";
import type { GridPoint } from "./search.js";

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

/** What a method came to: methods/<name>.json, by which a stopped comparison goes on. */
const result = z.object({
  identity: z.string(),
  rows: z.array(resultRow),
  /** Of all, the search among it; and of the merge (or the training) alone. */
  seconds: z.object({ total: z.number(), merge: z.number() }),
  values: z.record(z.string(), z.unknown()),
  search: z
    .array(
      z.object({
        values: z.record(z.string(), z.union([z.number(), z.string()])),
        accuracy: z.number(),
        loss: z.number(),
      }),
    )
    .optional(),
});
type Result = z.infer<typeof result>;

/** What was found before: by this name, or (where no model has to be kept) by another for what was trained alike. */
async function savedResult(
  context: CompareContext,
  name: string,
  identity: string,
  keep: boolean,
): Promise<Result | undefined> {
  const folder = join(context.out, "methods");
  const files = keep ? [] : (await readdir(folder)).filter((file) => file.endsWith(".json"));
  for (const file of [`${name}.json`, ...files]) {
    const saved = existsSync(join(folder, file))
      ? result.safeParse(await readJson(join(folder, file)).catch(() => undefined)).data
      : undefined;
    if (saved?.identity === identity && (!keep || existsSync(modelFolder(context, name))))
      return { ...saved, rows: saved.rows.map((row) => ({ ...row, method: name })) };
  }
  return undefined;
}

/** Hashes of what tests on tasks that are held out depend on: their data, and the experts that their heads are of. */
async function heldOutHashes(
  { locations, head, data, family: { base } }: Inputs,
  options: MergeOptions,
  tasks: readonly string[],
): Promise<InputHash[]> {
  const found: InputHash[] = [];
  const { sources } = head ? await locate({ ...options, tasks }) : { sources: [] };
  const { canonical } = await readFamily(locations.base);
  for (const [i, task] of pickTasks(await loadTasks(data), tasks).entries()) {
    const {
      sources: { test },
    } = await loadTaskData(data, task, options);
    found.push({ role: `${task.id}, held out, data`, file: basename(test.name), sha256: await hashOf(test) });
    if (!head) continue;
    const { checkpoint } = await openExpert(task.id, sources[i]!.folder, base, canonical);
    try {
      for (const file of checkpoint.files)
        found.push({
          role: `${task.id}, held out, head`,
          file,
          sha256: await sha256(join(checkpoint.folder, file)),
        });
    } finally {
      await checkpoint.close();
    }
  }
  return found;
}

/**
 * Scores of a written merge on tasks that had no part in it; a model with heads is given those of the
 * tasks' own experts.
 */
async function measureHeldOut(
  context: CompareContext,
  candidate: Candidate,
  tasks: readonly string[],
): Promise<ResultRow[]> {
  const {
    inputs: {
      family: { base },
      head,
      data,
      plan,
    },
    options,
  } = context;
  const folder = modelFolder(context, candidate.name);
  const { sources } = head ? await locate({ ...options, tasks }) : { sources: [] };
  const { canonical } = await readFamily(context.inputs.locations.base);
  for (const [i, label] of tasks.entries()) {
    const member = head ? await openExpert(label, sources[i]!.folder, base, canonical) : { ...base, label };
    await writeHead(folder, member, head);
    if (head) await member.checkpoint.close();
  }
  return (
    await evaluateFolder(
      { ...options, folder, base: context.inputs.locations.base, data, tasks, placement: plan.chosen },
      candidate.name,
    )
  ).rows;
}

/**
 * Merges the same experts with one method after the other, each with its grid searched on the
 * validation examples, and measures what each wrote on the test examples. A stopped comparison goes on
 * where it was.
 */
export async function compareMethods(options: CompareOptions, hooks: MergeHooks): Promise<Compared> {
  const { methods: asked, search, threads, given, keep, heldOut, ...plain } = options;
  const named = (names: readonly string[] | "all") => candidatesOf(names, options.tasks.length, hooks.note);
  const chosen =
    asked === "all" ? named(asked) : asked.flatMap((one) => (typeof one === "string" ? named([one]) : [one]));
  const recipe = await recipeOf(options);
  const out = options.out ?? join("merged", `compare-${recipe.name}`);
  await openOutput(out, [recipe.locations.base, ...recipe.locations.sources.map(({ folder }) => folder)]);
  await mkdir(join(out, "methods"), { recursive: true });
  await writeText(join(out, "compare.json"), { version, methods: chosen.map(({ name }) => name) });
  const inputs = await openInputs(options, recipe, out, hooks);
  const rows: ResultRow[] = [];
  const times: Timed[] = [];
  const values: Record<string, Result["values"]> = {};
  const searches: Record<string, readonly GridPoint[]> = {};
  const synthetic = inputs.tasks.some((task) => task.synthetic);
  const compared = (finished: boolean): Compared => ({ out, rows, times, values, synthetic, finished });
  // Which methods, how they are run and where they live changes no number of any; what training does is
  // nothing to the rest.
  const { seed, valPerTask, maxLength, dtype, tasks, split, score } = options;
  const shared = { tasks, seed, valPerTask, maxLength, dtype, split, score, engine: inputs.plan.engine };
  const settings = { ...shared, ...given };
  const hashes = [...inputs.hashes, ...(heldOut?.length ? await heldOutHashes(inputs, plain, heldOut) : [])];
  const context: CompareContext = { out, inputs, recipe, options: plain, search, threads, given, hooks };
  try {
    const quiet = { seed: options.seed, progress: () => {} };
    rows.push(...(await evaluateReferences(mergeContextOf(inputs), inputs.tasks, quiet)));
    for (const [i, candidate] of chosen.entries()) {
      const { name } = candidate;
      if (hooks.stopping()) return compared(false);
      const path = join(out, "methods", `${name}.json`);
      const own =
        "method" in candidate
          ? {
              name,
              search,
              ...(candidate.given && { values: candidate.given }),
              ...(candidate.grid && { grid: candidate.grid }),
            }
          : {
              given,
              settings: settingsOf(candidate, context),
              ...("tree" in candidate && { tree: candidate.tree }),
            };
      const identity = digest({ version, shared, ...own, ...(heldOut && { heldOut }), hashes });
      let done = await savedResult(context, name, identity, keep);
      if (!done) {
        hooks.progress(name, i, chosen.length);
        await rm(path, { force: true });
        const made = await runContender(context, candidate, identity);
        if (!made) return compared(false);
        if (heldOut?.length) made.rows.push(...(await measureHeldOut(context, candidate, heldOut)));
        if (!keep) await rm(modelFolder(context, name), { recursive: true, force: true });
        done = { identity, ...made };
        await writeText(path, done);
      }
      rows.push(...done.rows);
      times.push({ method: name, ...done.seconds });
      values[name] = done.values;
      if (done.search) searches[name] = done.search;
      hooks.note(
        `${name}: ${((100 * done.rows.reduce((sum, { value }) => sum + value, 0)) / done.rows.length).toFixed(1)} ` +
          `% on average, ${done.seconds.total.toFixed(1)} s`,
      );
    }
    await writeText(join(out, "table.md"), `${toMarkdown(comparisonTable(rows, times))}\n`);
    await writeText(join(out, "results.json"), { rows, search: searches, times, settings, inputs: hashes });
    return compared(true);
  } catch (error) {
    if (error instanceof Stopped) return compared(false);
    throw error;
  } finally {
    await inputs.dispose();
  }
}
