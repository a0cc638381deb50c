import type { MergeContext } from "../evaluate/baselines.js";
import { evaluateTasks, type PreparedTask, type Score } from "../evaluate/evaluate.js";
import { gates, type GateName } from "../merge/gates.js";
import { applyGate, makeTable, throughGate, type Table } from "../merge/table.js";
import { trainingBatches } from "../tasks/batches.js";
import { adamDefaults, adamW, learningRate, zeroMoments, type Moments, type decays } from "./adamw.js";
import { usesLabels, type LossName } from "./losses.js";
import { coefficientGradient } from "./step.js";

export interface TrainOptions {
  readonly steps: number;
  readonly lr: number;
  readonly warmup: number;
  readonly decay: (typeof decays)[number];
  readonly weightDecay: number;
  readonly batchSize: number;
  readonly gate: GateName;
  /** The coefficient every entry starts from, after the gate. */
  readonly init: number;
  /** Part of each task's validation examples that is not trained on but chooses the best step; 0 chooses on all. */
  readonly holdout: number;
  readonly loss: LossName;
  /** One a task, or all 1. */
  readonly taskWeights?: readonly number[] | undefined;
  readonly evalEvery: number;
  readonly saveEvery: number;
  readonly seed: number;
  /** Batches of each task a step (default: 1). */
  readonly batchesPerStep?: number | undefined;
  /** Whether it trains on the validation examples, or (without labels) on the test inputs. */
  readonly adaptOn?: "validation" | "test" | undefined;
  /** Tokens that share one pass through the model. */
  readonly microBatch?: number | undefined;
}

/** Everything a run needs to go on from where it stood. Batches follow from the step number (tasks/batches.ts). */
export interface TrainState {
  readonly raw: Table;
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

/** What the best step is chosen by: cross-entropy summed over tasks, as weighted in training. */
const validationLoss = (scores: readonly Score[], weights: readonly number[]) =>
  scores.reduce((sum, { loss }, i) => sum + weights[i]! * loss, 0);

/**
 * Cuts a task's examples into those trained on and those the best step is chosen on (all, where none
 * are held out).
 */
function holdOut(
  task: PreparedTask,
  holdout: number,
): { fit: PreparedTask["validation"]; judge: PreparedTask["validation"] } {
  const { validation } = task;
  const held = Math.min(validation.length - 1, Math.round(validation.length * holdout));
  return held > 0
    ? { fit: validation.slice(held), judge: validation.slice(0, held) }
    : { fit: validation, judge: validation };
}

/**
 * Trains the coefficient table (SuperMerge, eq. 5): each step takes one batch of every task, sums their losses and
 * takes an AdamW step on the raw table. Every `evalEvery` steps, and after the last, the table is scored on the
 * examples held out; the one with the lowest loss is the result (a loss without labels has nothing to
 * choose by: there the last table is).
 * @returns the final state, and whether all steps were taken
 */
export async function train(
  place: MergeContext,
  tasks: readonly PreparedTask[],
  options: TrainOptions,
  start: TrainState,
  hooks: TrainHooks,
): Promise<{ state: TrainState; finished: boolean }> {
  const weights = options.taskWeights ?? tasks.map(() => 1);
  // A loss without labels chooses nothing by them: it may train on every example.
  const parts = tasks.map((task) => holdOut(task, usesLabels(options.loss) ? options.holdout : 0));
  const judges = tasks.map((task, i) => ({ ...task, validation: parts[i]!.judge }));
  const fits = tasks.map((task, i) => (options.adaptOn === "test" ? task.test : parts[i]!.fit));
  const each = options.batchesPerStep ?? 1;
  const batchOf = tasks.map((task, i) => trainingBatches(task.id, fits[i]!, options.batchSize, options.seed));
  let state = start;

  const score = async () => {
    const scores = await evaluateTasks(
      { ...place, table: applyGate(state.raw, options.gate) },
      judges,
      "validation",
    );
    const loss = validationLoss(scores, weights);
    if (!state.best || loss < state.best.loss)
      state = { ...state, best: { step: state.moments.step, loss, raw: state.raw } };
    return { loss, accuracy: scores.map(({ accuracy }) => accuracy) };
  };

  const shown = () =>
    Array.from(applyGate(state.raw, options.gate).values, (value) => Math.round(value * 1e4) / 1e4);

  if (state.moments.step === 0)
    await hooks.record({ step: 0, validation: await score(), coefficients: shown() });
  while (state.moments.step < options.steps) {
    const at = state.moments.step;
    const jobs = tasks.flatMap(({ head }, i) =>
      Array.from({ length: each }, (_, n) => ({
        head,
        batch: batchOf[i]!(at * each + n),
        weight: weights[i]!,
      })),
    );
    const { gradient, losses: jobLosses } = await coefficientGradient(
      place.model,
      place.vectors,
      applyGate(state.raw, options.gate),
      jobs,
      { ...options, blockwise: place.blockwise },
    );
    const losses = tasks.map((_, i) =>
      jobLosses.slice(i * each, (i + 1) * each).reduce((sum, value) => sum + value, 0),
    );
    const loss = losses.reduce((sum, value) => sum + value, 0);
    if (!Number.isFinite(loss))
      throw new RangeError(`the loss became ${loss} at step ${at + 1}; try a lower --lr`);
    const lr = learningRate(at, options.steps, options.lr, options.warmup, options.decay);
    state = {
      ...state,
      ...adamW(state.raw, throughGate(gradient, state.raw, options.gate), state.moments, lr, {
        ...adamDefaults,
        weightDecay: options.weightDecay,
      }),
    };

    const step = at + 1;
    const scored = step % options.evalEvery === 0 || step === options.steps;
    await hooks.record({
      step,
      lr,
      loss,
      losses,
      ...(scored && { validation: await score(), coefficients: shown() }),
    });
    // After the last step there is nothing left to stop.
    const stop = step < options.steps && hooks.stopping();
    if (stop || step % options.saveEvery === 0 || step === options.steps) await hooks.save(state);
    if (stop) break;
  }
  return { state, finished: state.moments.step >= options.steps };
}

/** The raw table a finished run stands for: the best on validation, or the last where labels were not used. */
export function chosenRaw(state: TrainState, { loss }: TrainOptions): Table {
  return usesLabels(loss) && state.best ? state.best.raw : state.raw;
}
