/**
 * Block by block, from the first to the last (ProDistill, Xu et al. 2025): a block learns coefficients until what
 * it makes, of what the merged blocks before it made, is nearest to what each expert's own block makes of what that
 * expert's own blocks made, on the expert's inputs. No labels, no head; nothing is differentiated but one block.
 */
import { at, f64, lookUp } from "../at.js";
import { expertOf, type MergeContext } from "../evaluate/baselines.js";
import { evaluateTasks, type PreparedTask } from "../evaluate/evaluate.js";
import { applyGate, constantTables, throughGate, type Table } from "../merge/table.js";
import type { Block, Model, TokenRow } from "../models/types.js";
import { openStage, stageForward, stagesOf, type Boundary, type Stage } from "../stages/stages.js";
import { bucketed, groupUpTo, rowTokens } from "../tasks/batches.js";
import { lackAnswers } from "../tasks/decisions.js";
import { shuffled } from "../tasks/split.js";
import { adamDefaults, adamW, learningRate, zeroMoments, type Moments } from "./adamw.js";
import { blockGradient, type BlockPass } from "./block-gradient.js";
import type { Training, TrainHooks, TrainOptions, TrainRecord, TrainState } from "./loop.js";

/** A task's passes: those of each of its batches. */
interface TaskPasses {
  readonly task: PreparedTask;
  readonly weight: number;
  readonly batches: readonly (readonly BlockPass[])[];
}

/** Cuts rows into passes of one length each (and of targets of one length), of at most so many tokens. */
function passesOf(model: Model, rows: readonly TokenRow[], microBatch: number): BlockPass[] {
  const alike = new Map<string, TokenRow[]>();
  for (const row of rows) {
    const key = `${row.ids.length} ${row.targets?.length ?? 0}`;
    alike.set(key, [...(alike.get(key) ?? []), row]);
  }
  return [...alike.values()]
    .flatMap((group) => groupUpTo(group, microBatch, (row) => rowTokens(row)))
    .map((group) => ({ batch: model.prepare(group), merged: [], own: [], target: [] }));
}

/** A training by blocks, and who the experts are as they are (their task vectors may have been treated). */
export interface BlockTraining extends Training {
  readonly teacher: MergeContext;
}

/** The rows of the table that a block's tensors have. */
function rowsOfBlock({ shapes }: Block<unknown>, { vectors }: MergeContext): Set<number> {
  const tensors = [...shapes.keys()].map((name) => lookUp(vectors.tensors, name));
  return new Set(tensors.filter(({ experts }) => experts.length > 0).map(({ row }) => row));
}

/** A block that is trained: the rows of the table that no block before it has trained. */
export interface TrainedBlock {
  readonly stage: Stage;
  /** None where nothing of it is trained. */
  readonly rows: ReadonlySet<number>;
}

/**
 * The model's blocks, each with what it trains. A row that two blocks share is the first one's. An output layer
 * alone (its scores are as many as the vocabulary has tokens) keeps what it starts from.
 */
export function trainedBlocks(place: MergeContext): TrainedBlock[] {
  const taken = new Set<number>();
  return stagesOf(place.model, true).map((stage) => {
    const block = at(stage.blocks, 0);
    const isOutput = stage.last && place.model.output !== undefined;
    const rows = new Set([...rowsOfBlock(block, place)].filter((row) => !isOutput && !taken.has(row)));
    for (const row of rows) taken.add(row);
    return { stage, rows };
  });
}

/** What is known at the beginning of a block. */
interface AtBlock {
  readonly training: BlockTraining;
  readonly each: readonly TaskPasses[];
  readonly block: TrainedBlock;
  /** Steps of a block. */
  readonly steps: number;
}

const passesIn = ({ batches }: TaskPasses): BlockPass[] => batches.flat();

/** Runs every task's passes through a block with a table, and hands over what it made. */
async function forwardBlock(
  { model, vectors, table }: MergeContext & { readonly table: Table },
  stage: Stage,
  passes: readonly BlockPass[],
  use: { from(pass: BlockPass): Boundary; to(pass: BlockPass, made: Boundary): void },
): Promise<void> {
  const batches = passes.map(({ batch }) => batch);
  const opened = await openStage({ model, vectors, table }, stage, batches);
  try {
    for (const pass of passes) {
      const start = { batch: pass.batch, boundary: use.from(pass) };
      use.to(pass, await stageForward(model, stage, opened.weights, start));
    }
  } finally {
    opened.dispose();
  }
}

/** What every expert's own block makes, an expert at a time. */
async function askExperts({ training: { teacher }, each, block: { stage } }: AtBlock): Promise<void> {
  const { layers, experts } = teacher.vectors;
  for (const one of each) {
    const table = constantTables.individual(layers.length, experts.length, expertOf(teacher, one.task));
    await forwardBlock({ ...teacher, table }, stage, passesIn(one), {
      from: ({ own }) => own,
      to: (pass, made) => void (pass.target = made),
    });
  }
}

/** Takes the steps of one block. @returns the table, undefined where it was asked to stop */
async function trainBlock(
  { training, each, block: { stage, rows }, steps }: AtBlock,
  start: { readonly raw: Table; readonly step: number },
  hooks: TrainHooks,
): Promise<Table | undefined> {
  const { place, options } = training;
  let [raw, moments]: [Table, Moments] = [start.raw, zeroMoments(start.raw.values.length)];
  for (let n = 0; n < steps; n++) {
    if (hooks.stopping()) return undefined;
    const jobs = each.map(({ weight, batches }) => ({ weight, passes: at(batches, n % batches.length) }));
    const table = applyGate(raw, options.gate);
    const { gradient, losses } = await blockGradient({ place, table }, stage, jobs);
    const loss = losses.reduce((all, one) => all + one, 0);
    if (!Number.isFinite(loss))
      throw new RangeError(`the loss became ${loss} at step ${start.step + n + 1}; try a lower --lr`);
    const lr = learningRate(n, { ...options, steps });
    const { weightDecay } = options;
    const how = { ...adamDefaults, weightDecay, lr };
    const after = adamW(raw, throughGate(gradient, raw, options.gate), moments, how);
    raw = withRows(raw, after.raw, rows);
    ({ moments } = after);
    const shown = n === steps - 1 ? await shownOf(training, raw) : {};
    await hooks.record({ step: start.step + n + 1, lr, loss, losses, ...shown });
  }
  return raw;
}

/** A table with some of its rows from another. */
const withRows = (before: Table, after: Table, rows: ReadonlySet<number>): Table => ({
  ...before,
  values: before.values.map((value, i) =>
    rows.has(Math.floor(i / before.columns)) ? f64(after.values, i) : value,
  ),
});

/** What is shown after a block: validation scores, where there are answers, and coefficients. */
async function shownOf(
  { place, tasks, options }: Training,
  raw: Table,
): Promise<Pick<TrainRecord, "validation" | "coefficients">> {
  const table = applyGate(raw, options.gate);
  const coefficients = Array.from(table.values, (value) => Math.round(value * 1e4) / 1e4);
  if (lackAnswers(tasks)) return { coefficients };
  const scores = await evaluateTasks({ ...place, table }, tasks, "validation");
  const loss = scores.reduce((all, score) => all + score.loss, 0);
  return { coefficients, validation: { loss, accuracy: scores.map(({ accuracy }) => accuracy) } };
}

/** A task's examples laid out, each batch of like length: as many batches, in a drawn order, as a block has steps. */
function layOut({ place: { model }, options, tasks }: BlockTraining, steps: number): TaskPasses[] {
  const weights = options.taskWeights ?? tasks.map(() => 1);
  return tasks.map((task, i) => {
    const examples = options.adaptOn === "test" ? task.test : task.validation;
    const all = bucketed(examples, options.batchSize);
    const drawn = shuffled(all, `${options.seed}/blocks/${task.id}`).slice(0, Math.max(1, steps));
    return {
      task,
      weight: at(weights, i),
      batches: drawn.map(({ rows }) => passesOf(model, rows, options.microBatch)),
    };
  });
}

/**
 * Trains a table block by block. A state is saved after every block, whose last step it names: a stopped training goes
 * on with the block that it stopped in. Device memory: one merged block, its gradients and a pass's activations; the
 * experts' and the merge's activations at one boundary lie in host memory.
 * @param start a state that this function saved, or a fresh one
 */
export async function trainByBlocks(
  training: BlockTraining,
  start: TrainState,
  hooks: TrainHooks,
): Promise<{ state: TrainState; finished: boolean }> {
  const { place, options } = training;
  const blocks = trainedBlocks(place);
  const trained = blocks.filter(({ rows }) => rows.size > 0);
  const steps = options.steps / Math.max(1, trained.length);
  const each = layOut(training, steps);
  let state = start;
  if (state.moments.step === 0) await hooks.record({ step: 0, ...(await shownOf(training, state.raw)) });
  // Behind the last that is trained nothing is asked of any block.
  for (const block of blocks.slice(0, 1 + blocks.findLastIndex(({ rows }) => rows.size > 0))) {
    const now: AtBlock = { training, each, block, steps };
    await askExperts(now);
    const end = steps * (1 + trained.indexOf(block));
    if (block.rows.size > 0 && end > state.moments.step) {
      const raw = await trainBlock(now, { raw: state.raw, step: state.moments.step }, hooks);
      if (!raw) {
        await hooks.save(state);
        return { state, finished: false };
      }
      state = { raw, moments: { ...zeroMoments(raw.values.length), step: end } };
      await hooks.save(state);
    }
    if (end === options.steps) break;
    const table = applyGate(state.raw, options.gate);
    await forwardBlock({ ...place, table }, block.stage, each.flatMap(passesIn), {
      from: ({ merged }) => merged,
      to: (pass, made) => void ([pass.merged, pass.own] = [made, pass.target]),
    });
  }
  return { state, finished: true };
}

/** Steps of all blocks together, of so many each. */
export const stepsOfBlocks = (place: MergeContext, { steps }: Pick<TrainOptions, "steps">): number =>
  steps * trainedBlocks(place).filter(({ rows }) => rows.size > 0).length;
