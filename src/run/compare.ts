import { existsSync } from "node:fs";
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readJson, writeText } from "../checkpoint/files.js";
import { presetOf, trained } from "../config/trained.js";
import { Stopped, UserError } from "../errors.js";
import { toRows } from "../evaluate/baselines.js";
import { evaluateTasks } from "../evaluate/evaluate.js";
import { constantTables } from "../methods/constant.js";
import { methods } from "../methods/index.js";
import { parametersOf } from "../methods/pipeline.js";
import type { Method } from "../methods/types.js";
import { resolveValues } from "../methods/values.js";
import { nearest } from "../nearest.js";
import { version } from "../package.js";
import { comparisonTable, type Timed } from "../report/comparison.js";
import { metrics, type ResultRow } from "../report/rows.js";
import { toMarkdown } from "../report/table.js";
import { writeMerge } from "./disk.js";
import { evaluateFolder } from "./evaluate.js";
import { placeOf } from "./finish.js";
import { openInputs, recipeOf, type Inputs, type Recipe } from "./inputs.js";
import { mergeByTraining, methodName } from "./merge.js";
import { digest } from "./node-file.js";
import type { MergeHooks, MergeOptions } from "./options.js";
import { bestOf, searchGrid, type GridPoint } from "./search.js";
import { statisticsFor } from "./statistics.js";
import { openOutput } from "./output.js";

export interface CompareOptions extends MergeOptions {
  /** Names, or all. */
  readonly methods: readonly string[] | "all";
  /** Try each method's grid on the validation examples; else its customary defaults. */
  readonly search: boolean;
  /** Keep every method's merged model, in models/<method>. */
  readonly keep: boolean;
  readonly threads?: number | undefined;
  /** Settings that the user gave: AdaMerging's own defaults give way to them. */
  readonly given: Readonly<Record<string, unknown>>;
}

export interface Compared {
  readonly out: string;
  readonly rows: readonly ResultRow[];
  readonly times: readonly Timed[];
  readonly synthetic: boolean;
  readonly finished: boolean;
}

/** What a method came to: methods/<name>.json, by which a stopped comparison goes on. */
const result = z.object({
  identity: z.string(),
  rows: z.array(z.object({ method: z.string(), task: z.string(), split: z.enum(["validation", "test"]), metric: z.enum(metrics), value: z.number(), n: z.number(), seed: z.number() })),
  /** Of all, the search among it; and of the merge (or the training) alone. */
  seconds: z.object({ total: z.number(), merge: z.number() }),
  values: z.record(z.string(), z.unknown()),
  search: z.array(z.object({ values: z.record(z.string(), z.union([z.number(), z.string()])), accuracy: z.number(), loss: z.number() })).optional(),
});
type Result = z.infer<typeof result>;

const fits = ({ inputs: [least, most] = [1, Infinity] }: Method, models: number): boolean => models >= least && models <= most;

/** Merges with a method that trains nothing, and measures what it wrote. */
async function tryMethod(out: string, method: Method, inputs: Inputs, options: CompareOptions, hooks: MergeHooks): Promise<Omit<Result, "identity">> {
  const started = performance.now();
  const { family, head, heads, data, plan, plain: model, tasks, hashes } = inputs;
  const given = "seed" in parametersOf(method) ? { seed: options.seed } : {};
  const statistics = await statisticsFor(method, { model, hashes, subjects: family.experts.map((member, i) => ({ member, task: tasks[i]! })) }, hooks);
  const merge = { base: family.base, inputs: family.experts, dtype: options.dtype, shardSize: options.shardSize, threads: options.threads, statistics, heads: { members: heads, names: head } };
  const search = options.search && method.grid ? await searchGrid(join(out, "trying"), method, given, merge, inputs, hooks) : undefined;
  const values = resolveValues(method, { ...given, ...(search && bestOf(search).values) }, family.experts.length);
  const folder = join(out, "models", method.name);
  const before = performance.now();
  await writeMerge(folder, { ...merge, method, values }, { ...hooks, note: () => {} });
  const seconds = { merge: (performance.now() - before) / 1000, total: (performance.now() - started) / 1000 };
  const { rows } = await evaluateFolder({ ...options, folder, data, placement: plan.chosen }, method.name);
  if (!options.keep) await rm(folder, { recursive: true, force: true });
  return { rows, seconds, values, search };
}

/** Trains coefficients and measures what was written; undefined where it was asked to stop. */
async function tryTraining(out: string, name: string, identity: string, options: CompareOptions, recipe: Recipe, hooks: MergeHooks): Promise<Omit<Result, "identity"> | undefined> {
  const changes = trained[name]!;
  const own = { ...presetOf(changes["method"], changes["variant"]), ...changes };
  const { methods: _m, search: _s, keep: _k, threads: _t, given, ...plain } = options;
  const settings = { ...plain, ...own, ...given, ...changes, out: join(out, "models", name), baselines: false } as MergeOptions;
  const started = performance.now();
  // A state is gone on from only where this very training left it.
  const mark = join(out, "methods", `${name}.started`);
  const mine = existsSync(mark) && (await readFile(mark, "utf8")) === identity;
  if (!mine) await rm(settings.out!, { recursive: true, force: true });
  await writeText(mark, identity);
  const resume = existsSync(join(settings.out!, "state.json")) && !existsSync(join(settings.out!, "results.json"));
  const made = await mergeByTraining({ ...settings, resume }, { ...hooks, note: () => {} }, recipe);
  if (!made.finished) return undefined;
  const run = (await readJson(join(made.out, "run.json"))) as { seconds: { train: number } };
  if (!options.keep) await rm(made.out, { recursive: true, force: true });
  const method = methodName(settings);
  return { rows: made.rows.filter((row) => row.method === method).map((row) => ({ ...row, method: name })), seconds: { total: (performance.now() - started) / 1000, merge: run.seconds.train }, values: { ...own } };
}

/** The rows that are no merge: every expert on its own task, and the base. */
async function references(inputs: Inputs, seed: number): Promise<ResultRow[]> {
  const { vectors: { layers: { length: n }, experts: { length: k } }, tasks } = inputs;
  const rows: ResultRow[] = [];
  for (const [i, task] of tasks.entries()) {
    rows.push(...toRows("individual", [task], await evaluateTasks({ ...placeOf(inputs), table: constantTables.individual(n, k, i) }, [task], "test"), "test", seed));
  }
  return [...rows, ...toRows("pretrained", tasks, await evaluateTasks({ ...placeOf(inputs), table: constantTables.pretrained(n, k) }, tasks, "test"), "test", seed)];
}

const comparable: readonly string[] = [...methods.map(({ name }) => name), ...Object.keys(trained)];

function chosenNames({ methods: asked, tasks }: CompareOptions, note: (message: string) => void): string[] {
  const unknown = asked === "all" ? undefined : asked.find((name) => !comparable.includes(name));
  if (unknown !== undefined) throw new UserError(`--methods ${unknown}: there is no such method${nearest(unknown, comparable)}; there are ${comparable.join(", ")}`);
  const unfit = (name: string) => methods.some((method) => method.name === name && !fits(method, tasks.length));
  const left = (asked === "all" ? comparable : asked).filter(unfit);
  if (left.length) note(`left out: ${left.join(", ")}, which do not merge ${tasks.length} models`);
  return (asked === "all" ? comparable : asked).filter((name) => !unfit(name));
}

/**
 * Merges the same experts with one method after the other, each with its grid searched on the validation examples, and
 * measures what each wrote on the test examples. A stopped comparison goes on where it was.
 */
export async function compareMethods(options: CompareOptions, hooks: MergeHooks): Promise<Compared> {
  const names = chosenNames(options, hooks.note);
  const recipe = await recipeOf(options);
  const out = options.out ?? join("merged", `compare-${recipe.name}`);
  await openOutput(out, [recipe.places.base, ...recipe.places.sources.map(({ folder }) => folder)]);
  await mkdir(join(out, "methods"), { recursive: true });
  await writeText(join(out, "compare.json"), { version, methods: names });
  const inputs = await openInputs(options, recipe, out, hooks);
  const rows: ResultRow[] = [];
  const times: Timed[] = [];
  const searches: Record<string, readonly GridPoint[]> = {};
  const synthetic = inputs.tasks.some((task) => task.synthetic);
  // Which methods, how they are run and where they live changes no number of any; what training does is nothing to the rest.
  const { seed, valPerTask, maxLength, dtype, tasks, split = "files", score = "sum" } = options;
  const shared = { tasks, seed, valPerTask, maxLength, dtype, split, score, engine: inputs.plan.engine };
  const settings = { ...shared, ...options.given };
  try {
    rows.push(...(await references(inputs, options.seed)));
    for (const [i, name] of names.entries()) {
      if (hooks.stopping()) return { out, rows, times, synthetic, finished: false };
      const path = join(out, "methods", `${name}.json`);
      const method = methods.find((one) => one.name === name);
      const identity = digest({ version, name, shared, ...(method ? { search: options.search } : { given: options.given }), hashes: inputs.hashes });
      const saved = existsSync(path) ? result.safeParse(await readJson(path).catch(() => undefined)) : undefined;
      let done: Result | undefined = saved?.data?.identity === identity && (!options.keep || existsSync(join(out, "models", name))) ? saved.data : undefined;
      if (!done) {
        hooks.progress(name, i, names.length);
        await rm(path, { force: true });
        const made = method ? await tryMethod(out, method, inputs, options, hooks) : await tryTraining(out, name, identity, options, recipe, hooks);
        if (!made) return { out, rows, times, synthetic, finished: false };
        done = { identity, ...made };
        await writeText(path, done);
      }
      rows.push(...done.rows);
      times.push({ method: name, ...done.seconds });
      if (done.search) searches[name] = done.search;
      hooks.note(`${name}: ${(100 * done.rows.reduce((sum, { value }) => sum + value, 0) / done.rows.length).toFixed(1)} % on average, ${done.seconds.total.toFixed(1)} s`);
    }
    await writeText(join(out, "table.md"), `${toMarkdown(comparisonTable(rows, times))}\n`);
    await writeText(join(out, "results.json"), { rows, search: searches, times, settings, inputs: inputs.hashes });
    return { out, rows, times, synthetic, finished: true };
  } catch (error) {
    if (error instanceof Stopped) return { out, rows, times, synthetic, finished: false };
    throw error;
  } finally {
    await inputs.dispose();
  }
}
