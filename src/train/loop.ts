import { at, f64 } from "../at.js";
import type { MergeContext } from "../evaluate/baselines.js";
import { evaluateTasks, type PreparedTask } from "../evaluate/evaluate.js";
import { gates, applyGate, makeTable, throughGate, type GateName, type Table } from "../merge/table.js";
import { lackAnswers } from "../tasks/decisions.js";
import { trainingBatches, type Batch, type EncodedExample } from "../tasks/batches.js";
import { adamDefaults, adamW, learningRate, zeroMoments, type Moments, type Schedule } from "./adamw.js";
import { usesLabels, type LossName, type TrainLoss } from "./passes.js";
import { coefficientGradient } from "./step.js";

/**
 * What a training takes of a run's settings, which hold it by the same names (config/options.ts sees to that), and
 * what it starts from.
 */
export interface TrainOptions extends Schedule {
  readonly weightDecay: number;
  readonly batchSize: number;
  readonly gate: GateName;
  /** The coefficient every entry starts from, after the gate. */
  readonly init: number;
  /** Part of each task's validation examples that is not trained on but chooses the best step; 0 chooses on all. */
  readonly holdout: number;
  readonly loss: TrainLoss;
  /** How strongly coefficients are pulled to `init`: that times half the squared distance is added to the loss. */
  readonly pull?: number | undefined;
  /** How strongly coefficients are pulled to 0: that times the sum of their sizes is added to the loss. */
  readonly shrink?: number | undefined;
  /** How much of the running mean of the tables each step keeps; 0 (the default) keeps the tables themselves. */
  readonly average?: number | undefined;
  /** One a task, or all 1. */
  readonly taskWeights?: readonly number[] | undefined;
  readonly evalEvery: number;
  readonly saveEvery: number;
  readonly seed: number;
  /** Batches of each task a step. */
  readonly batchesPerStep: number;
  /** Whether it trains on the validation examples, or (without labels) on the test inputs. */
  readonly adaptOn: "validation" | "test";
  /** Tokens that share one pass through the model. */
  readonly microBatch: number;
  /** Steps without a better held-out loss after which the training ends; undefined: all steps are taken. */
  readonly patience?: number | undefined;
}

/** Everything a run needs to go on from where it stood. Batches follow from the step number (tasks/batches.ts). */
export interface TrainState {
  readonly raw: Table;
  /** The running mean of the raw tables from the start on, where it is asked for: what is scored and kept. */
  readonly mean?: Table | undefined;
  readonly moments: Moments;
  /** The coefficients with the lowest validation loss so far. */
  readonly best?: { readonly step: number; readonly loss: number; readonly raw: Table };
}

/** One line of training.jsonl. */
export interface TrainRecord {
  readonly step: number;
  readonly lr?: number;
  /** Summed over tasks, as trained on. */
  readonly loss?: number;
  readonly losses?: readonly number[];
  readonly validation?: { readonly loss: number; readonly accuracy: readonly number[] };
  /** Where it was scored: the table after the gate, layers × experts in rows, to four places. */
  readonly coefficients?: readonly number[];
}

export interface TrainHooks {
  record(record: TrainRecord): void | Promise<void>;
  save(state: TrainState): Promise<void>;
  /** Asked after each step; true saves and stops. */
  stopping(): boolean;
}

export const initialState = (layers: number, experts: number, { gate, init }: TrainOptions): TrainState => {
  const raw = makeTable(layers, experts, () => gates[gate].inverse(init));
  return { raw, moments: zeroMoments(raw.values.length) };
};

/** A task as it is trained on. */
interface TaskInTraining {
  readonly task: PreparedTask;
  readonly weight: number;
  /** With the validation examples that the best step is chosen by. */
  readonly judged: PreparedTask;
  /** Training batch number n. */
  batch(n: number): Batch;
}

/** What is trained, on what and how. */
export interface Training<Task = PreparedTask, Options extends TrainOptions = TrainOptions> {
  readonly place: MergeContext;
  readonly tasks: readonly Task[];
  readonly options: Options;
}

/** Of a training whose loss is of what the whole model says. */
export type ModelOptions = TrainOptions & { readonly loss: LossName };

/**
 * Cuts a task's examples into those trained on and those the best step is chosen on (all, where none
 * are held out).
 */
function holdOut(
  validation: readonly EncodedExample[],
  holdout: number,
): { fit: readonly EncodedExample[]; judge: readonly EncodedExample[] } {
  const held = Math.min(validation.length - 1, Math.round(validation.length * holdout));
  if (held <= 0) return { fit: validation, judge: validation };
  return { fit: validation.slice(held), judge: validation.slice(0, held) };
}

function taskInTraining(task: PreparedTask, weight: number, options: TrainOptions): TaskInTraining {
  // A loss without labels chooses nothing by them: it may train on every example.
  const { fit, judge } = holdOut(task.validation, usesLabels(options.loss) ? options.holdout : 0);
  const examples = task.lessons ?? (options.adaptOn === "test" ? task.test : fit);
  return {
    task,
    weight,
    judged: { ...task, validation: judge },
    batch: trainingBatches(task.id, examples, options.batchSize, options.seed),
  };
}

/** Scores the table on the examples that the best step is chosen by, and keeps it where it is the best. */
async function scoreTable(
  { place, tasks, options }: Training<TaskInTraining>,
  state: TrainState,
): Promise<{ state: TrainState; shown: Pick<TrainRecord, "validation" | "coefficients"> }> {
  const raw = keptRaw(state);
  const table = applyGate(raw, options.gate);
  const coefficients = Array.from(table.values, (value) => Math.round(value * 1e4) / 1e4);
  // Without answers there is nothing to score.
  const judged = tasks.map((task) => task.judged);
  if (lackAnswers(judged)) return { state, shown: { coefficients } };
  const scores = await evaluateTasks({ ...place, table }, judged, "validation");
  // Cross-entropy summed over tasks, as weighted in training.
  const loss = tasks.reduce((sum, { weight }, i) => sum + weight * at(scores, i).loss, 0);
  const shown = {
    validation: { loss, accuracy: scores.map(({ accuracy }) => accuracy) },
    coefficients,
  };
  const isBest = !state.best || loss < state.best.loss;
  if (!isBest) return { state, shown };
  return { state: { ...state, best: { step: state.moments.step, loss, raw } }, shown };
}

/** One batch of every task (or several), and one step of AdamW. */
async function takeStep(
  { place, tasks, options }: Training<TaskInTraining, ModelOptions>,
  state: TrainState,
): Promise<{ state: TrainState; lr: number; loss: number; losses: number[] }> {
  const { step } = state.moments;
  const each = options.batchesPerStep;
  const jobs = tasks.flatMap(({ task: { head }, weight, batch }) =>
    Array.from({ length: each }, (_, n) => ({ head, weight, batch: batch(step * each + n) })),
  );
  const table = applyGate(state.raw, options.gate);
  const merge = { ...place, table, microBatch: options.microBatch };
  const { gradient: ofLosses, losses: jobLosses } = await coefficientGradient(merge, jobs, options.loss);
  const { gradient, loss: pulled } = pull(ofLosses, table, options);
  const losses = tasks.map((_, i) => lossSum(jobLosses.slice(i * each, (i + 1) * each)));
  const loss = lossSum(losses) + pulled;
  if (!Number.isFinite(loss))
    throw new RangeError(`the loss became ${loss} at step ${step + 1}; try a lower --lr`);
  const lr = learningRate(step, options);
  const after = adamW(state.raw, throughGate(gradient, state.raw, options.gate), state.moments, {
    ...adamDefaults,
    weightDecay: options.weightDecay,
    lr,
  });
  return { state: withMean({ ...state, ...after }, state, options), lr, loss, losses };
}

/** The state after a step, with its running mean where one is kept. */
function withMean(after: TrainState, before: TrainState, { average = 0 }: TrainOptions): TrainState {
  if (average === 0) return after;
  const { values } = before.mean ?? before.raw;
  const mean = after.raw.values.map((value, i) => average * f64(values, i) + (1 - average) * value);
  return { ...after, mean: { ...after.raw, values: mean } };
}

/** What of a state is scored and kept. */
const keptRaw = ({ raw, mean }: TrainState): Table => mean ?? raw;

/** Adds what pulls a table of coefficients to the start, and to 0. */
function pull(
  gradient: Table,
  { values }: Table,
  { pull: strength = 0, shrink = 0, init }: TrainOptions,
): { readonly gradient: Table; readonly loss: number } {
  if (strength === 0 && shrink === 0) return { gradient, loss: 0 };
  const slopes = values.map((value) => strength * (value - init) + shrink * Math.sign(value));
  const each = values.map((value) => (strength / 2) * (value - init) ** 2 + shrink * Math.abs(value));
  return {
    gradient: { ...gradient, values: gradient.values.map((g, i) => g + f64(slopes, i)) },
    loss: each.reduce((sum, one) => sum + one, 0),
  };
}

const lossSum = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0);

/**
 * Trains the coefficient table (SuperMerge, eq. 5): each step takes one batch of every task, sums their losses and
 * takes an AdamW step on the raw table. Every `evalEvery` steps, and after the last, the table is scored on the
 * examples held out; the one with the lowest loss is the result (a loss without labels has nothing to
 * choose by: there the last table is).
 * @returns the final state, and whether all steps were taken
 */
export async function train(
  { place, tasks, options }: Training<PreparedTask, ModelOptions>,
  start: TrainState,
  hooks: TrainHooks,
): Promise<{ state: TrainState; finished: boolean }> {
  const weights = options.taskWeights ?? tasks.map(() => 1);
  const training: Training<TaskInTraining, ModelOptions> = {
    place,
    options,
    tasks: tasks.map((task, i) => taskInTraining(task, at(weights, i), options)),
  };
  let state = start;
  const scored = async () => {
    const { state: after, shown } = await scoreTable(training, state);
    state = after;
    return shown;
  };
  if (state.moments.step === 0) await hooks.record({ step: 0, ...(await scored()) });
  while (!isDone(state, options)) {
    const { state: after, ...record } = await takeStep(training, state);
    state = after;
    const { step } = state.moments;
    const isScored = step === options.steps || step % options.evalEvery === 0;
    await hooks.record({ step, ...record, ...(isScored && (await scored())) });
    const isLast = isDone(state, options);
    // After the last step there is nothing left to stop.
    const stop = !isLast && hooks.stopping();
    if (stop || isLast || step % options.saveEvery === 0) await hooks.save(state);
    if (stop) break;
  }
  return { state, finished: isDone(state, options) };
}

/** Whether all steps were taken, or nothing better was found for as long as patience lasts. */
function isDone({ moments: { step }, best }: TrainState, { steps, patience }: TrainOptions): boolean {
  if (step >= steps) return true;
  return patience !== undefined && best !== undefined && step - best.step >= patience;
}

/** The step that a finished run stands for, in a sentence. */
export function chosenText(
  { best, moments: { step } }: TrainState,
  { loss, steps, patience = 0 }: TrainOptions,
): string {
  if (!usesLabels(loss) || !best)
    return `step ${step} of ${steps}, the last, is kept (no labels to choose by)`;
  const early = step < steps ? `; nothing better for ${patience} steps: stopped at ${step}` : "";
  return `step ${best.step} of ${steps} is kept (held-out loss ${best.loss.toFixed(4)})${early}`;
}

/** The number of the step that a finished run stands for. */
export const chosenStep = ({ best, moments }: TrainState, { loss }: Pick<TrainOptions, "loss">): number =>
  usesLabels(loss) && best ? best.step : moments.step;

/** The raw table a finished run stands for: the best on validation, or the last where labels were not used. */
export function chosenRaw(state: TrainState, { loss }: Pick<TrainOptions, "loss">): Table {
  if (usesLabels(loss) && state.best) return state.best.raw;
  return keptRaw(state);
}
