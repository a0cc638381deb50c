import { join } from "node:path";
import { withTeacher } from "../evaluate/teacher.js";
import { bestPoint, searchLambda, type MergeContext, type SearchPoint } from "../evaluate/baselines.js";
import { traffic } from "../checkpoint/safetensors.js";
import { applyGate } from "../merge/table.js";
import { lookUp } from "../at.js";
import { UserError } from "../errors.js";
import { lackAnswers } from "../tasks/decisions.js";
import { isSpoken, type LessonOptions } from "../evaluate/lessons.js";
import { withLessons } from "./lessons.js";
import { version } from "../package.js";
import { stepsOfBlocks, trainByBlocks } from "../train/blocks.js";
import { usesLabels } from "../train/passes.js";
import {
  chosenRaw,
  chosenStep,
  chosenText,
  initialState,
  train,
  type TrainHooks,
  type TrainOptions,
  type TrainState,
} from "../train/loop.js";
import type { PreparedTask } from "../evaluate/evaluate.js";
import type { PlacementRequest } from "../plan/memory.js";
import { finishMerge, searchProgress, withExperts, type Finished } from "./finish.js";
import { openInputs, mergeContextOf, type Inputs } from "../inputs/open.js";
import { recipeOf, type Recipe } from "../inputs/locate.js";
import type { MergeHooks, MergeOptions, MergeResult } from "../config/options.js";
import { fitToTime, fittedBefore, measuringSeconds, searchedSeconds } from "./fit.js";
import { packingCost } from "./packing.js";
import { recorded } from "../inputs/data.js";
import { loadState, openLog, placedIn, saveState } from "../folder/state.js";
import { stateFile } from "../folder/files.js";
import { beginRun } from "../folder/output.js";

/** A gate with open ends cannot start at 1: the slope there is nothing. */
const largestStart = 0.9;
/** AdaMerging's start, for a loss that may not look at labels. */
const unlabelledStart = 0.3;

function startFrom({ init, loss }: MergeOptions, lambda: number): number {
  if (init !== "search") return init;
  if (!usesLabels(loss)) return unlabelledStart;
  return Math.min(largestStart, lambda);
}

/** A trained merge's row in the results. */
function methodName({ method, treat, loss, granularity, adaptOn }: MergeOptions): string {
  const isSuperMerge = method === "supermerge";
  let name: string = method;
  if (isSuperMerge && !usesLabels(loss)) name += `-${loss}`;
  if (treat !== "none" && method !== "adamerging++") name += ` on ${treat}`;
  if (!isSuperMerge && granularity === "model") name += ", task-wise";
  if (adaptOn === "test") name += " (test inputs)";
  return name;
}

/** The state is small (three numbers a coefficient): it is saved often. */
const saveEvery = 10;

/** What the numbers of a run depend on: a state that was made with anything else is not gone on from. */
export const identityOf = (options: MergeOptions, { plan, hashes }: Inputs): Record<string, unknown> => ({
  version,
  ...recorded(options, plan),
  ...Object.fromEntries(hashes.map(({ role, file, sha256: hash }) => [`${role}/${file}`, hash])),
});

/** A training that keeps its state and log in a folder. */
export interface TrainingRun {
  readonly out: string;
  readonly inputs: Inputs;
  readonly identity: Readonly<Record<string, unknown>>;
  /** Whether it goes on from the state in `out`. */
  readonly resume: boolean;
}

/** What a training takes, and how experts are asked where it learns from them. */
export type RunOptions = TrainOptions & LessonOptions;

/** A run's tasks with what each one's expert says of their examples: of classes, or token by token. */
const taughtTasks = (inputs: Inputs, options: RunOptions, hooks: MergeHooks): Promise<PreparedTask[]> =>
  withExperts(inputs, async (experts) => {
    const all: readonly PreparedTask[] = inputs.tasks;
    const [spoken, others] = [all.filter(isSpoken), all.filter((task) => !isSpoken(task))];
    const { engine, hashes, columns } = inputs;
    const lessons = { ...options, split: options.adaptOn, engine, hashes, columns };
    const found = [
      ...(await withTeacher(experts, others, options.adaptOn)),
      ...(await withLessons(experts, spoken, lessons, hooks)),
    ];
    const byId = new Map(found.map((task) => [task.id, task]));
    return inputs.tasks.map(({ id }) => lookUp(byId, id));
  });

/** Trains from a start, or from the state in `out`; keeps state and log as it goes. */
export async function trainRun(
  { out, inputs, identity, resume }: TrainingRun,
  begin: TrainState,
  options: RunOptions,
  hooks: MergeHooks,
): Promise<{ state: TrainState; finished: boolean }> {
  let start = begin;
  if (resume) {
    start = await loadState(out, identity);
    hooks.note(`resumed at step ${start.moments.step} of ${options.steps}`);
  }
  const log = await openLog(out, start.moments.step);
  const { layers, experts } = inputs.vectors;
  const labels = { layers: layers.map(({ id }) => id), experts, steps: options.steps };
  if (!resume) await beginRun(out, () => saveState(out, identity, start, labels));
  const place = mergeContextOf(inputs);
  const trainHooks: TrainHooks = {
    record(record) {
      log.add(record);
      hooks.step(
        record,
        inputs.tasks.map(({ id }) => id),
        options.steps,
      );
    },
    async save(current) {
      await log.save();
      await saveState(out, identity, current, labels);
    },
    stopping: hooks.stopping,
  };
  const result = await trainWith(inputs, start, { place, options }, { hooks, trainHooks });
  await log.save();
  return result;
}

/** Steps that a training takes: of each block, where it goes block by block. */
export const stepsInAll = (inputs: Inputs, options: Pick<MergeOptions, "loss" | "steps">): number =>
  options.loss === "block-distillation" ? stepsOfBlocks(mergeContextOf(inputs), options) : options.steps;

/** The training that a loss asks for: of the whole model, or block by block. */
async function trainWith(
  inputs: Inputs,
  start: TrainState,
  { place, options }: { readonly place: MergeContext; readonly options: RunOptions },
  { hooks, trainHooks }: { readonly hooks: MergeHooks; readonly trainHooks: TrainHooks },
): Promise<{ state: TrainState; finished: boolean }> {
  const { loss } = options;
  if (loss === "block-distillation")
    return withExperts(inputs, (teacher) =>
      trainByBlocks({ place, teacher, tasks: inputs.tasks, options }, start, trainHooks),
    );
  const tasks = loss === "distillation" ? await taughtTasks(inputs, options, hooks) : inputs.tasks;
  return train({ place, tasks, options: { ...options, loss } }, start, trainHooks);
}

export interface Trained {
  readonly state: TrainState;
  readonly finished: boolean;
  readonly options: TrainOptions;
  readonly search: readonly SearchPoint[];
  readonly lambda: number;
  readonly seconds: number;
  readonly bytesRead: number;
}

/** The search of λ, where the start or a baseline needs it; and the λ that it finds. */
async function findLambda(
  inputs: Inputs,
  { baselines, init, loss }: MergeOptions,
  hooks: MergeHooks,
): Promise<{ search: readonly SearchPoint[]; lambda: number }> {
  // Nobody asks for λ where the start is given and no baseline is measured.
  const isNeeded = baselines !== false || (init === "search" && usesLabels(loss));
  if (!isNeeded) return { search: [], lambda: NaN };
  if (lackAnswers(inputs.tasks)) {
    hooks.note(`task arithmetic takes λ = ${unlabelledStart}: there are no answers to choose it by`);
    return { search: [], lambda: unlabelledStart };
  }
  const search = await searchLambda(mergeContextOf(inputs), inputs.tasks, searchProgress(hooks));
  const { lambda } = bestPoint(search);
  hooks.note(`task arithmetic finds λ = ${lambda} on the validation examples`);
  return { search, lambda };
}

/** Finds λ for the start and for task arithmetic, then trains. */
export async function searchAndTrain(
  run: TrainingRun,
  options: MergeOptions,
  hooks: MergeHooks,
): Promise<Trained> {
  const { vectors } = run.inputs;
  const began = performance.now();
  const { search, lambda } = await findLambda(run.inputs, options, hooks);
  const { tasks } = run.inputs;
  const token = search.length > 0 ? searchedSeconds(tasks, (performance.now() - began) / 1000) : undefined;
  if (token !== undefined) hooks.expected?.(measuringSeconds(tasks, options, token));
  const steps = stepsInAll(run.inputs, options);
  const trainOptions: RunOptions = { ...options, steps, init: startFrom(options, lambda), saveEvery };
  hooks.note(`coefficients start at ${trainOptions.init}`);
  const [start, readBefore] = [performance.now(), traffic.read];
  const begin = initialState(vectors.layers.length, vectors.experts.length, trainOptions);
  const { state, finished } = await trainRun(run, begin, trainOptions, hooks);
  return {
    state,
    finished,
    options: trainOptions,
    search,
    lambda,
    seconds: (performance.now() - start) / 1000,
    bytesRead: traffic.read - readBefore,
  };
}

/** Where an earlier run had its task vectors, unless the user says otherwise; undefined where there was none. */
async function requestBefore(
  out: string,
  { residency, blocks }: MergeOptions,
): Promise<PlacementRequest | undefined> {
  const before = await placedIn(out);
  if (!before) return undefined;
  const request: PlacementRequest = { residency, blocks };
  return {
    residency: request.residency === "auto" ? before.residency : request.residency,
    blocks: request.blocks === "auto" ? before.blocks : request.blocks,
  };
}

/**
 * The main job: trains the coefficients of a merge, writes the merged model, and measures it beside its baselines.
 * Memory: see loadTaskVectors and coefficientGradient.
 */
export async function trainMerge(
  asked: MergeOptions,
  hooks: MergeHooks,
  given?: Recipe,
): Promise<MergeResult> {
  const started = performance.now();
  if (asked.adaptOn === "test" && usesLabels(asked.loss))
    throw new UserError(
      "test inputs may only be trained on without their labels; choose --loss entropy or distillation",
    );
  if (asked.loss === "block-distillation" && asked.minutes !== undefined)
    throw new UserError("--minutes: with --loss block-distillation give --steps, those of a block");
  const found = given ?? (await recipeOf(asked));
  const out = asked.out ?? join("merged", found.name);
  await hooks.begun?.(out);
  // What auto finds depends on the memory that happens to be free: a run goes on where it was.
  const resume = (asked.resume ?? false) && stateFile.exists(out);
  const begun = resume ? await fittedBefore(out, asked) : asked;
  // A run that was killed before its first save left nothing to go on from: the same command starts it.
  if (asked.resume && !resume) hooks.note(`--resume: ${out} holds no ${stateFile.name}; the run starts anew`);
  const recipe: Recipe = { ...found, ...(resume && { request: await requestBefore(out, begun) }) };
  const opened = await openInputs(begun, recipe, out, hooks);
  try {
    const { inputs, options } = resume
      ? { inputs: opened, options: begun }
      : await fitToTime(opened, begun, started, hooks);
    const run: TrainingRun = {
      out,
      inputs,
      identity: identityOf(options, inputs),
      resume,
    };
    const trained = await searchAndTrain(run, options, hooks);
    if (!trained.finished)
      return { out, rows: [], synthetic: inputs.tasks.some(({ synthetic }) => synthetic), finished: false };
    hooks.note(chosenText(trained.state, trained.options));
    const raw = chosenRaw(trained.state, trained.options);
    const table = applyGate(raw, options.gate);
    const isPacked = inputs.vectors.packing !== "f32" || inputs.vectors.baseError > 0;
    const finished: Finished = {
      raw,
      table,
      method: methodName(options),
      title: `${inputs.name}: coefficients, layers × experts (${options.gate})`,
      packing: isPacked ? await packingCost(inputs, table, hooks) : undefined,
      search: trained.search,
      lambda: trained.lambda,
      settings: { start: trained.options.init, chosenStep: chosenStep(trained.state, trained.options) },
      run: {
        seconds: { train: trained.seconds, total: (performance.now() - started) / 1000 },
        bytesRead: { train: trained.bytesRead, total: traffic.read },
      },
    };
    return await finishMerge({ out, inputs, options, hooks }, finished);
  } finally {
    await opened.dispose();
  }
}
