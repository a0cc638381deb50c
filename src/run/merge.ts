import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import type { EngineName } from "../backend/index.js";
import { startEngine, tfjsVersion } from "../backend/index.js";
import { openFamily, openMember, type Family, type Member } from "../checkpoint/family.js";
import { sha256, writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { bestPoint, evaluateBaselines, searchLambda, type SearchPoint } from "../evaluate/baselines.js";
import type { Granularity } from "../merge/layers.js";
import { loadTaskVectors, type TaskVectors } from "../merge/vectors.js";
import type { Head } from "../models/index.js";
import { applyGate } from "../merge/table.js";
import { version } from "../package.js";
import { modelCard, type InputHash } from "../report/card.js";
import type { ResultRow } from "../report/rows.js";
import type { FloatDType } from "../tensor/dtype.js";
import { loadTasks, pickTasks } from "../tasks/registry.js";
import { loadTokenizer } from "../tasks/tokenize.js";
import { chosenRaw, initialState, train, type TrainOptions, type TrainRecord } from "../train/loop.js";
import { checkFamily, checkHead, checkVocabulary } from "./check.js";
import { evaluateFolder } from "./evaluate.js";
import { locate, shippedData, shippedFamily } from "./locate.js";
import { disposeHead, loadHead, prepareTask, readModel } from "./prepare.js";
import { loadState, openLog, saveState } from "./state.js";
import { beginRun, openOutput, writeCoefficients, writeHead, writeModel } from "./write.js";

export interface MergeOptions extends Omit<TrainOptions, "saveEvery" | "init"> {
  /** A coefficient, or `search`: the λ that task arithmetic finds on the validation examples. */
  readonly init: number | "search";
  readonly tasks: readonly string[];
  readonly family?: string | undefined;
  readonly base?: string | undefined;
  readonly experts?: readonly string[] | undefined;
  readonly data?: string | undefined;
  readonly out?: string | undefined;
  readonly valPerTask: number;
  readonly granularity: Granularity;
  readonly backend: EngineName | "auto";
  readonly maxLength: number;
  readonly dtype: FloatDType | "auto";
  readonly shardSize: number;
  readonly resume?: boolean | undefined;
}

/** What a run tells whoever watches it. */
export interface MergeHooks {
  note(message: string): void;
  progress(phase: string, done: number, of: number): void;
  step(record: TrainRecord, tasks: readonly string[], steps: number): void;
  stopping(): boolean;
}

export interface MergeResult {
  readonly out: string;
  readonly rows: readonly ResultRow[];
  readonly synthetic: boolean;
  /** False where the run was asked to stop: it can be resumed. */
  readonly finished: boolean;
}

/** A gate with open ends cannot start at 1: the slope there is nothing. */
const largestStart = 0.9;
/** AdaMerging's start, for a loss that may not look at labels. */
const unlabelledStart = 0.3;

function startFrom({ init, loss }: MergeOptions, search: readonly SearchPoint[]): number {
  if (init !== "search") return init;
  return loss === "cross-entropy" ? Math.min(largestStart, bestPoint(search).lambda) : unlabelledStart;
}

/** The state is small (three numbers a coefficient): it is saved often. */
const saveEvery = 10;

/** Hashes of everything the numbers depend on: models, tokenizer, data. */
async function hashInputs(family: Family, data: string, tasks: readonly { id: string; sources: { validation: string; test: string } }[]): Promise<InputHash[]> {
  const { base, experts } = family;
  const files = [base, ...experts].flatMap(({ label, checkpoint }) => checkpoint.files.map((file) => ({ role: label, path: join(checkpoint.folder, file) })));
  for (const file of ["tokenizer.json", "tokenizer_config.json"]) {
    const path = join(base.checkpoint.folder, file);
    if (existsSync(path)) files.push({ role: base.label, path });
  }
  if (existsSync(join(data, "tasks.json"))) files.push({ role: "data", path: join(data, "tasks.json") });
  for (const { id, sources } of tasks) for (const path of new Set([sources.validation, sources.test])) files.push({ role: `${id}, data`, path });
  const hashes: InputHash[] = [];
  for (const { role, path } of files) hashes.push({ role, file: basename(path), sha256: await sha256(path) });
  return hashes;
}

/** The transformers class that an expert says it is. */
function headClassOf({ checkpoint }: Member): string {
  const listed = checkpoint.config["architectures"];
  const architecture: unknown = Array.isArray(listed) ? listed[0] : listed;
  return typeof architecture === "string" ? architecture : "AutoModelForSequenceClassification";
}

/** Settings that change the numbers, as the card and the state record them: without places on this machine. */
function recorded(options: MergeOptions, engine: EngineName): Record<string, unknown> {
  const { base: _b, experts: _e, data: _d, out: _o, resume: _r, family: _f, ...rest } = options;
  return { ...rest, backend: engine };
}

/**
 * The main job: trains the coefficients of a merge, writes the merged model, and measures it beside its baselines.
 * Host memory: one tensor of k + 1 models at a time; device memory: see loadTaskVectors and coefficientGradient.
 */
export async function mergeByTraining(options: MergeOptions, hooks: MergeHooks): Promise<MergeResult> {
  const started = performance.now();
  const data = options.data ?? shippedData;
  const tasks = pickTasks(await loadTasks(data), options.tasks);
  const places = await locate(options);
  const { family: modelFamily, model } = await readModel(places.base);
  const name = `${basename(options.family ?? (options.base ? places.base : shippedFamily))}-${options.tasks.join("+")}`;
  const out = options.out ?? join("merged", name);

  const family = await openFamily(await openMember("base", places.base, modelFamily.canonical), places.experts, modelFamily.canonical);
  const heads: Head[] = [];
  let vectors: TaskVectors | undefined;
  try {
    checkFamily(family, model);
    family.experts.forEach((expert, i) => checkHead(expert, modelFamily.head, model, tasks[i]!));
    const encoder = await loadTokenizer(places.base, Math.min(options.maxLength, model.maxLength));
    checkVocabulary(places.base, encoder, model);
    await openOutput(out, [places.base, ...places.experts.map(({ folder }) => folder)]);

    const engine = await startEngine(options.backend);
    hooks.note(`engine ${engine}; base ${places.base}; experts ${options.tasks.join(", ")}; output ${out}`);
    const prepared = [];
    for (const [i, task] of tasks.entries()) {
      const expert = family.experts[i]!;
      const head = await loadHead(expert, modelFamily.head);
      heads.push(head);
      const ready = await prepareTask(task, head, expert.checkpoint.config, encoder, { data, valPerTask: options.valPerTask, seed: options.seed });
      const fewer = ready.validation.length < options.valPerTask ? `, fewer than --val-per-task ${options.valPerTask}` : "";
      hooks.note(`${task.id}: ${ready.validation.length} validation examples from ${ready.sources.validation}${fewer}; ${ready.test.length} test examples from ${ready.sources.test}`);
      prepared.push(ready);
    }
    const synthetic = prepared.some((task) => task.synthetic);
    const inputs = await hashInputs(family, data, prepared);
    vectors = await loadTaskVectors(family, [...model.parameters.keys()], options.granularity, (done, of) => hooks.progress("task vectors", done, of));
    if (vectors.layers.length === 0) throw new UserError(`${places.base}: no expert differs from the base; there is nothing to merge`);
    hooks.note(`${vectors.layers.length} layers × ${tasks.length} experts = ${vectors.layers.length * tasks.length} coefficients`);

    const search = await searchLambda(model, vectors, prepared, (done, of) => hooks.progress("task arithmetic: search of λ", done, of));
    const trainOptions: TrainOptions = { ...options, init: startFrom(options, search), saveEvery };
    hooks.note(`task arithmetic finds λ = ${bestPoint(search).lambda} on validation; coefficients start at ${trainOptions.init}`);
    const settings = recorded(options, engine);
    const identity = { version, ...settings, ...Object.fromEntries(inputs.map(({ role, file, sha256: hash }) => [`${role}/${file}`, hash])) };
    const start = options.resume ? await loadState(out, identity) : initialState(vectors.layers.length, tasks.length, trainOptions);
    if (options.resume) hooks.note(`resumed at step ${start.moments.step} of ${options.steps}`);
    const log = await openLog(out, start.moments.step);
    if (!options.resume) await beginRun(out, () => saveState(out, identity, start));
    const trainStart = performance.now();
    const { state, finished } = await train(model, vectors, prepared, trainOptions, start, {
      record(record) {
        log.add(record);
        hooks.step(record, options.tasks, options.steps);
      },
      async save(current) {
        await log.save();
        await saveState(out, identity, current);
      },
      stopping: hooks.stopping,
    });
    const trainSeconds = (performance.now() - trainStart) / 1000;
    if (!finished) return { out, rows: [], synthetic, finished };
    await log.save();

    const raw = chosenRaw(state, trainOptions);
    const table = applyGate(raw, options.gate);
    await writeModel(out, family, modelFamily.head, vectors, table, options.dtype === "auto" ? undefined : options.dtype, options.shardSize);
    for (const expert of family.experts) await writeHead(out, expert, modelFamily.head);
    await writeCoefficients(out, vectors, raw, table, `${name}: coefficients, layers × experts (${options.gate})`);

    const baselineRows = await evaluateBaselines(model, vectors, prepared, bestPoint(search).lambda, options.seed, hooks.progress);
    hooks.progress("supermerge, from the written files", 0, 1);
    const merged = await evaluateFolder({ ...options, folder: out, data }, options.loss === "entropy" ? "supermerge-entropy" : "supermerge");
    const rows = [...baselineRows, ...merged.rows];
    await writeText(join(out, "README.md"), modelCard({ name, tasks: options.tasks, headClass: headClassOf(family.experts[0]!), synthetic, settings, rows, inputs, version, valPerTask: options.valPerTask }));
    await writeResults(out, rows, search, { ...settings, start: trainOptions.init });
    await writeText(join(out, "run.json"), {
      version, tfjs: tfjsVersion, node: process.version, platform: `${process.platform}-${process.arch}`, engine, places, data,
      seconds: { train: trainSeconds, total: (performance.now() - started) / 1000 },
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
    });
    return { out, rows, synthetic, finished };
  } finally {
    vectors?.dispose();
    heads.forEach(disposeHead);
    await family.close();
  }
}

async function writeResults(out: string, rows: readonly ResultRow[], search: readonly SearchPoint[], settings: Record<string, unknown>): Promise<void> {
  await writeText(join(out, "results.json"), { rows, search: { "task-arithmetic": search }, settings });
}
