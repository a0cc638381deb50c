import { join } from "node:path";
import { withTeacher } from "../evaluate/teacher.js";
import { bestPoint, searchLambda, type SearchPoint } from "../evaluate/baselines.js";
import { traffic } from "../checkpoint/safetensors.js";
import { applyGate } from "../merge/table.js";
import { UserError } from "../errors.js";
import { version } from "../package.js";
import { usesLabels } from "../train/losses.js";
import { chosenRaw, initialState, train, type TrainOptions, type TrainState } from "../train/loop.js";
import { finishMerge, withExperts } from "./finish.js";
import { openInputs, mergeContextOf, recipeOf, type Inputs, type Recipe } from "../inputs/open.js";
import type { MergeHooks, MergeOptions, MergeResult } from "../config/options.js";
import { packingCost } from "./packing.js";
import { recorded } from "../inputs/record.js";
import { loadState, openLog, placedIn, saveState } from "../folder/state.js";
import { beginRun } from "../folder/output.js";

/** A gate with open ends cannot start at 1: the slope there is nothing. */
const largestStart = 0.9;
/** AdaMerging's start, for a loss that may not look at labels. */
const unlabelledStart = 0.3;

function startFrom({ init, loss }: MergeOptions, lambda: number): number {
  if (init !== "search") return init;
  return usesLabels(loss) ? Math.min(largestStart, lambda) : unlabelledStart;
}

/** A trained merge's row in the results. */
export function methodName({ method, treat, loss, granularity, adaptOn }: MergeOptions): string {
  const treated = treat === "none" || method === "adamerging++" ? "" : ` on ${treat}`;
  const unlabelled = method === "supermerge" && !usesLabels(loss) ? `-${loss}` : "";
  const taskWise = method !== "supermerge" && granularity === "model" ? ", task-wise" : "";
  return `${method}${unlabelled}${treated}${taskWise}${adaptOn === "test" ? " (test inputs)" : ""}`;
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
export interface Run {
  readonly out: string;
  readonly inputs: Inputs;
  readonly identity: Readonly<Record<string, unknown>>;
  /** Whether it goes on from the state in `out`. */
  readonly resume: boolean;
}

/** Trains from a start, or from the state in `out`; keeps state and log as it goes. */
export async function trainRun(
  { out, inputs, identity, resume }: Run,
  begin: TrainState,
  options: TrainOptions,
  hooks: MergeHooks,
): Promise<{ state: TrainState; finished: boolean }> {
  const start = resume ? await loadState(out, identity) : begin;
  if (resume) hooks.note(`resumed at step ${start.moments.step} of ${options.steps}`);
  const log = await openLog(out, start.moments.step);
  if (!resume) await beginRun(out, () => saveState(out, identity, start));
  const place = mergeContextOf(inputs);
  const tasks =
    options.loss === "distillation"
      ? await withExperts(inputs, (experts) => withTeacher(experts, inputs.tasks, options.adaptOn))
      : inputs.tasks;
  const result = await train({ place, tasks, options }, start, {
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
      await saveState(out, identity, current);
    },
    stopping: hooks.stopping,
  });
  await log.save();
  return result;
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

/** Finds λ for the start and for task arithmetic, then trains. */
export async function searchAndTrain(run: Run, options: MergeOptions, hooks: MergeHooks): Promise<Trained> {
  const { inputs } = run;
  const { vectors, tasks } = inputs;
  // Nobody asks for λ where the start is given and no baseline is measured.
  const asked = options.baselines !== false || (options.init === "search" && usesLabels(options.loss));
  const search = asked
    ? await searchLambda(mergeContextOf(inputs), tasks, (done, of) =>
        hooks.progress("task arithmetic: search of λ", done, of),
      )
    : [];
  const lambda = asked ? bestPoint(search).lambda : NaN;
  const trainOptions: TrainOptions = { ...options, init: startFrom(options, lambda), saveEvery };
  hooks.note(
    `${asked ? `task arithmetic finds λ = ${lambda} on validation; ` : ""}coefficients start at ${trainOptions.init}`,
  );
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

/**
 * The main job: trains the coefficients of a merge, writes the merged model, and measures it beside its baselines.
 * Memory: see loadTaskVectors and coefficientGradient.
 */
export async function mergeByTraining(
  options: MergeOptions,
  hooks: MergeHooks,
  given?: Recipe,
): Promise<MergeResult> {
  const started = performance.now();
  if (options.adaptOn === "test" && usesLabels(options.loss))
    throw new UserError(
      "test inputs may only be trained on without their labels; choose --loss entropy or distillation",
    );
  const found = given ?? (await recipeOf(options));
  const out = options.out ?? join("merged", found.name);
  // What auto finds depends on the memory that happens to be free: a run goes on where it was.
  const before = options.resume ? await placedIn(out) : undefined;
  const recipe: Recipe = {
    ...found,
    request: before && {
      residency: options.residency === "auto" ? before.residency : options.residency,
      blocks: options.blocks === "auto" ? before.blocks : options.blocks,
    },
  };
  const inputs = await openInputs(options, recipe, out, hooks);
  try {
    const run: Run = { out, inputs, identity: identityOf(options, inputs), resume: options.resume ?? false };
    const trained = await searchAndTrain(run, options, hooks);
    if (!trained.finished)
      return { out, rows: [], synthetic: inputs.tasks.some(({ synthetic }) => synthetic), finished: false };
    const raw = chosenRaw(trained.state, trained.options);
    const packing = await packingCost(inputs, applyGate(raw, options.gate), hooks);
    return await finishMerge(
      out,
      inputs,
      options,
      {
        raw,
        table: applyGate(raw, options.gate),
        method: methodName(options),
        title: `${inputs.name}: coefficients, layers × experts (${options.gate})`,
        packing,
        search: trained.search,
        lambda: trained.lambda,
        settings: { start: trained.options.init },
        run: {
          seconds: { train: trained.seconds, total: (performance.now() - started) / 1000 },
          bytesRead: { train: trained.bytesRead, total: traffic.read },
        },
      },
      hooks,
    );
  } finally {
    await inputs.dispose();
  }
}
