/** A run fitted to a time (`--minutes`): what a step and an evaluation take here is measured, and the rest follows. */
import { z } from "zod";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { UserError } from "../errors.js";
import { evaluateTasks, type PreparedTask } from "../evaluate/evaluate.js";
import { stateFile } from "../folder/files.js";
import type { TaskExamples } from "../inputs/data.js";
import { mergeContextOf, type Inputs } from "../inputs/open.js";
import { constantTables, lambdaGrid, type Table } from "../merge/table.js";
import { rowTokens, trainingBatches } from "../tasks/batches.js";
import { testDraw } from "../tasks/split.js";
import { coefficientGradient } from "../train/step.js";

const tokensOf = (tasks: readonly PreparedTask[], split: "validation" | "test"): number =>
  tasks.reduce((sum, task) => sum + task[split].reduce((all, { rows }) => all + rowTokens(...rows), 0), 0);

/** How often the test sets are gone through: experts, base, average, task arithmetic, merge; or the merge alone. */
export const testPasses = ({ baselines }: Pick<MergeOptions, "baselines">): number =>
  baselines === false ? 1 : 5;

/** Seconds that measuring the result takes, by what evaluating a token took. */
export const measuringSeconds = (
  tasks: readonly PreparedTask[],
  options: Pick<MergeOptions, "baselines">,
  secondsAToken: number,
): number => testPasses(options) * secondsAToken * tokensOf(tasks, "test");

/** Seconds that evaluating a token took in the search of λ; undefined where none was made. */
export const searchedSeconds = (tasks: readonly PreparedTask[], seconds: number): number | undefined => {
  const tokens = lambdaGrid.length * tokensOf(tasks, "validation");
  return seconds > 0 && tokens > 0 ? seconds / tokens : undefined;
};

/** Seconds that something takes once the engine knows it: the least of some tries, of fewer where one takes long. */
async function secondsOf(run: () => Promise<unknown>): Promise<number> {
  let least = Infinity;
  let spent = 0;
  for (let tries = 0; tries < 2 || (tries < 6 && spent < 1.5); tries++) {
    const started = performance.now();
    await run();
    const seconds = (performance.now() - started) / 1000;
    spent += seconds;
    least = Math.min(least, seconds);
  }
  return least;
}

/** What this machine takes. */
interface Costs {
  readonly step: number;
  readonly token: number;
}

/** Times a step and an evaluation of a few examples. */
async function measureCosts(inputs: Inputs, options: MergeOptions): Promise<Costs> {
  const place = mergeContextOf(inputs);
  const { layers, experts } = inputs.vectors;
  const table: Table = constantTables.average(layers.length, experts.length);
  const some = inputs.tasks.map((task) => ({ ...task, validation: task.validation.slice(0, 8) }));
  const evaluate = () => evaluateTasks({ ...place, table }, some, "validation");
  const jobs = inputs.tasks.map(({ id, head, validation }) => ({
    head,
    weight: 1,
    batch: trainingBatches(id, validation, options.batchSize, options.seed)(0),
  }));
  const isDistilled = options.loss === "distillation" || options.loss === "block-distillation";
  const loss = isDistilled ? "entropy" : options.loss;
  const fitting = jobs.filter(({ batch }) => loss === "cross-entropy" || batch.kind !== "regress");
  const step = () => coefficientGradient({ ...place, table, microBatch: options.microBatch }, fitting, loss);
  const token = (await secondsOf(evaluate)) / tokensOf(some, "validation");
  return { token, step: options.batchesPerStep * (await secondsOf(step)) };
}

/** Parts of the time that the search and the measuring may take; the steps have the rest. */
const searchShare = 0.15;
const measuringShare = 0.35;
const mostSteps = 500;

/** How many examples a task may have, so that all of them take no more than some seconds. */
function countFor(
  examples: readonly (readonly unknown[])[],
  needed: number,
  allowed: number,
  least: number,
): number {
  const most = Math.max(...examples.map(({ length }) => length));
  if (needed <= allowed) return most;
  return Math.min(most, Math.max(least, Math.floor((most * allowed) / needed)));
}

/** The settings that a time decides. */
const fittedSettings = z.object({
  steps: z.number(),
  valPerTask: z.number(),
  testPerTask: z.number().optional(),
});

/** Settings that an earlier start of the run was fitted to: it goes on with them. */
export async function fittedBefore(out: string, options: MergeOptions): Promise<MergeOptions> {
  if (options.minutes === undefined) return options;
  const saved = fittedSettings.safeParse((await stateFile.readIfSound(out))?.identity);
  return saved.success ? { ...options, ...saved.data } : options;
}

/** A task with fewer examples: those that a run with these settings would have drawn. */
function withFewer(
  task: TaskExamples,
  { seed, testPerTask: before }: MergeOptions,
  { valPerTask, testPerTask }: Pick<MergeOptions, "valPerTask" | "testPerTask">,
): TaskExamples {
  const drawn = <T>(test: readonly T[]): readonly T[] => {
    // What was drawn already is in the order of the draw.
    if (before !== undefined) return test.slice(0, testPerTask);
    return testDraw(test, task, { testPerTask, seed });
  };
  return {
    ...task,
    validation: task.validation.slice(0, valPerTask),
    test: drawn(task.test),
    ...(task.tests && { tests: task.tests.map(drawn) }),
  };
}

/**
 * Fits steps, examples and what is measured to `minutes`; other runs are left as they are.
 * @throws UserError where the time is too short for one step
 */
export async function fitToTime(
  inputs: Inputs,
  options: MergeOptions,
  started: number,
  { note }: Pick<MergeHooks, "note">,
): Promise<{ inputs: Inputs; options: MergeOptions }> {
  const { minutes } = options;
  if (minutes === undefined) return { inputs, options };
  const costs = await measureCosts(inputs, options);
  const gone = (performance.now() - started) / 1000;
  const budget = 60 * minutes - gone;
  const searched = lambdaGrid.length * costs.token * tokensOf(inputs.tasks, "validation");
  const fewest = countFor(
    inputs.tasks.map(({ validation }) => validation),
    searched,
    searchShare * budget,
    8,
  );
  // One file cut in two: fewer validation examples would be another test set.
  const isShared = inputs.tasks.some(({ sources }) => sources.validation.name === sources.test.name);
  const valPerTask = isShared ? options.valPerTask : fewest;
  const measured = measuringSeconds(inputs.tasks, options, costs.token);
  const sizes = inputs.tasks.map(({ test }) => test);
  const testPerTask = countFor(sizes, measured, measuringShare * budget, 16);
  const isCut = testPerTask < Math.max(...sizes.map(({ length }) => length));
  const fitted = { steps: 0, valPerTask, ...(isCut && { testPerTask }) };
  const tasks = inputs.tasks.map((task) => withFewer(task, options, fitted));
  const held = options.holdout * costs.token * tokensOf(tasks, "validation");
  const left =
    budget -
    lambdaGrid.length * costs.token * tokensOf(tasks, "validation") -
    measuringSeconds(tasks, options, costs.token);
  const steps = Math.min(mostSteps, Math.floor(left / (costs.step + held / options.evalEvery)));
  if (steps < 1)
    throw new UserError(
      `--minutes ${minutes}: too short: ${gone.toFixed(0)} s are gone already, a step takes ` +
        `${costs.step.toFixed(1)} s, and measuring ${(60 * minutes - left).toFixed(0)} s`,
    );
  note(
    `--minutes ${minutes}: ${steps} steps of ${costs.step.toFixed(2)} s, ${valPerTask} validation examples a task, ` +
      (isCut ? `${testPerTask} test examples a task` : "all test examples"),
  );
  return { inputs: { ...inputs, tasks }, options: { ...options, ...fitted, steps } };
}
