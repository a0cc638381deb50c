import {
  add,
  concat,
  dispose,
  engine,
  keep,
  tidy,
  zerosLike,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at, f32, f64, lookUp } from "../at.js";
import type { Merge } from "../evaluate/merge.js";
import { innerProducts } from "../merge/merged.js";
import type { Table } from "../merge/table.js";
import type { Request } from "../merge/stream.js";
import type { TaskVectors } from "../merge/vectors.js";
import { along } from "../models/ops.js";
import type { Model, OutputBlock } from "../models/types.js";
import { streamedOutput, type OutputPlace } from "../stages/output.js";
import { outputBackward } from "./output.js";
import {
  openStage,
  runStage,
  stageForward,
  stagesOf,
  toBoundary,
  toTensors,
  type Boundary,
  type Stage,
  type StageWeights,
} from "../stages/stages.js";
import { tokensAPass } from "../tasks/batches.js";
import { jobLosses } from "./losses.js";
import { modelPasses, type LossName, type PassJob, type StepJob } from "./passes.js";

/** One pass through the model: some jobs, laid out, and what each stage left for the next. */
interface ModelPass {
  readonly jobs: readonly PassJob[];
  readonly batch: unknown;
  /** What stage s starts from; nothing for the first. */
  readonly inputs: Boundary[];
  /** ∂L/∂ of what the stage in hand hands on; nothing before the last stage has run. */
  upstream: Boundary;
}

/** Lays a step's jobs out in passes. */
const layOut = (model: Model, jobs: readonly StepJob[], microBatch: number): ModelPass[] =>
  modelPasses(jobs, microBatch).map((part) => ({
    jobs: part,
    batch: model.prepare(part.flatMap(({ batch }) => batch.rows)),
    inputs: [[]],
    upstream: [],
  }));

/**
 * The loss summed over tasks and its gradient with respect to every coefficient of a merge's table.
 *
 * The chain is cut at the merged weights: they are made once a stage, a pass at a time runs through
 * autodiff and adds to ∂L/∂θ, and each tensor's deltas are read once more for ⟨∂L/∂θ, τ_i⟩. With one
 * stage (the whole model), device memory beside the task vectors is the merged weights, two gradients
 * of that size (one where a single pass does) and a pass's activations. Block by block it is that of
 * the largest block: a first sweep leaves each block's input in host memory, then each block, last to
 * first, is merged again, run again and differentiated. Neither grows with tasks or experts.
 */
export async function coefficientGradient(
  { model, vectors, table, blockwise = false, microBatch = tokensAPass }: Merge,
  jobs: readonly StepJob[],
  loss: LossName,
): Promise<{ gradient: Table; losses: number[] }> {
  const stages = stagesOf(model, blockwise);
  const passes = layOut(model, jobs, microBatch);
  const batches = passes.map(({ batch }) => batch);
  const open = (stage: Stage) => openStage({ model, vectors, table }, stage, batches);
  for (const stage of stages.slice(0, -1)) {
    const opened = await open(stage);
    try {
      for (const { inputs, batch } of passes)
        inputs.push(await stageForward(model, stage, opened.weights, { batch, boundary: at(inputs, -1) }));
    } finally {
      opened.dispose();
    }
  }
  // Below the first block that anybody changed there is nothing to differentiate.
  const isChanged = ({ blocks }: Stage) =>
    blocks.some(({ shapes }) =>
      [...shapes.keys()].some((name) => lookUp(vectors.tensors, name).experts.length > 0),
    );
  const lowest = stages.findIndex(isChanged);
  const values = new Float64Array(table.values.length);
  const losses = new Float64Array(jobs.length);
  for (const [s, stage] of [...stages.entries()].slice(lowest).toReversed()) {
    const output = streamedOutput({ model, vectors }, stage);
    const { products, passLosses } = output
      ? await streamedBackward({ model, vectors, table }, output, passes, { loss, s })
      : await stageBackward({ model, vectors, loss, s, stage, opened: await open(stage) }, passes);
    addToTable({ ...table, values }, products, vectors);
    // A job may have been cut into several: each carries its place.
    const parts = passes.flatMap((pass) => pass.jobs);
    for (const [i, part] of passLosses.entries()) {
      const { index } = at(parts, i);
      losses[index] = f64(losses, index) + part;
    }
  }
  return { gradient: { ...table, values }, losses: [...losses] };
}

/** An output layer that is never all there. */
async function streamedBackward(
  place: OutputPlace,
  output: OutputBlock<unknown>,
  passes: readonly ModelPass[],
  { loss, s }: Pick<StageRun, "loss" | "s">,
): Promise<{ products: TensorProducts[]; passLosses: Float32Array }> {
  const inputs = passes.map(({ batch, inputs: carried, jobs }) => ({
    batch,
    boundary: at(carried, s),
    losses: (scores: Tensor2D) => jobLosses(scores, jobs, loss),
  }));
  const { products, losses, upstream } = await outputBackward(place, output, inputs);
  for (const [i, pass] of passes.entries()) pass.upstream = at(upstream, i);
  return { products, passLosses: losses };
}

/** A stage with its weights merged, and what its losses are. */
interface StageRun {
  readonly model: Model;
  readonly vectors: TaskVectors;
  readonly loss: LossName;
  /** Its number. */
  readonly s: number;
  readonly stage: Stage;
  readonly opened: StageWeights;
}

/** Inner products of a tensor's gradient with the task vectors of those that changed it, in their order. */
export interface TensorProducts {
  readonly name: string;
  readonly numbers: Float32Array;
}

/**
 * Gradients of the same weights by one more pass: both lists are the caller's no longer, the sums are. What neither
 * pass reaches has none. One at a time, so that no third copy of the gradients is held.
 */
export const addGradients = (
  total: readonly (Tensor | undefined)[],
  more: readonly (Tensor | undefined)[],
): (Tensor | undefined)[] =>
  more.map((now, i) => {
    const before = total[i];
    if (!before || !now) return before ?? now;
    const sum = add(before, now);
    dispose([before, now]);
    return sum;
  });

/** One stage backward over all passes; disposes the stage's weights. The losses are those of the last stage. */
async function stageBackward(
  run: StageRun,
  passes: readonly ModelPass[],
): Promise<{ products: TensorProducts[]; passLosses: Float32Array }> {
  const { vectors, opened } = run;
  const losses: Tensor[] = [];
  let total: (Tensor | undefined)[] = [];
  for (const pass of passes) {
    const { gradients, back } = passBackward(run, pass, losses);
    total = addGradients(total, gradients);
    pass.upstream = await toBoundary(back);
  }
  // The merged weights are done with; the task vectors are read once more.
  opened.dispose();
  return readGradients(vectors, opened.changed, total, losses);
}

/**
 * ⟨∂L/∂θ, τ_i⟩ of every tensor that a gradient reached, and the losses, in one transfer; disposes gradients and losses.
 * @param total ∂L/∂ of the changed tensors, in their order
 */
export async function readGradients(
  vectors: TaskVectors,
  changed: StageWeights["changed"],
  total: readonly (Tensor | undefined)[],
  losses: readonly Tensor[],
): Promise<{ products: TensorProducts[]; passLosses: Float32Array }> {
  const reached: { request: Request; gradient: Tensor }[] = [];
  for (const [i, { request }] of changed.entries()) {
    const gradient = total[i];
    if (gradient) reached.push({ request, gradient });
  }
  const gradients = reached.map(({ gradient }) => gradient);
  const products = await innerProducts(
    vectors,
    reached.map(({ request }) => request),
    gradients,
  );
  dispose(gradients);
  const numbers = await packedData([...losses, ...products]);
  let end = losses.reduce((sum, { size }) => sum + size, 0);
  return {
    passLosses: numbers.subarray(0, end),
    products: reached.map(({ request: { name } }, i) => ({
      name,
      numbers: numbers.subarray(end, (end += at(products, i).size)),
    })),
  };
}

/** Adds inner products to the entries of a table that they are the gradient of. */
export function addToTable(
  { columns, values }: Table,
  products: readonly TensorProducts[],
  { tensors }: TaskVectors,
): void {
  for (const { name, numbers } of products) {
    const { row, experts } = lookUp(tensors, name);
    for (const [i, column] of experts.entries()) {
      const entry = row * columns + column;
      values[entry] = f64(values, entry) + f32(numbers, i);
    }
  }
}

/** The numbers of vectors, one after the other, in one transfer from the device; disposes them. */
async function packedData(vectors: readonly Tensor[]): Promise<Float32Array> {
  if (vectors.length === 0) return new Float32Array(0);
  const packed = tidy(() => concat([...vectors]));
  const numbers = await packed.data<"float32">();
  dispose([packed, ...vectors]);
  return numbers;
}

/**
 * A pass backward through a stage: ∂L/∂ of its changed weights, and of what it starts from.
 * @param losses of the last stage: the pass's are added
 */
function passBackward(
  { model, loss, s, stage, opened: { weights, changed } }: StageRun,
  pass: ModelPass,
  losses: Tensor[],
): { gradients: (Tensor | undefined)[]; back: Tensor[] } {
  const carried = toTensors(at(pass.inputs, s));
  const upstream = toTensors(pass.upstream);
  const all: (Tensor | undefined)[] = tidy(
    () =>
      engine().gradients(() => {
        const state = runStage(model, stage, weights, { batch: pass.batch, carried });
        if (!stage.last) return along(model.carried(state), upstream);
        const each = jobLosses(model.features(state), pass.jobs, loss);
        losses.push(keep(concat(each)));
        return each.reduce((a, b) => add(a, b));
      }, [...changed.map(({ tensor }) => tensor), ...carried]).grads,
  );
  // What a stage hands through without looking at it (an encoder's result, at a decoder's end) has no
  // gradient there.
  const back = carried.map((t, i) => all[changed.length + i] ?? zerosLike(t));
  dispose([...carried, ...upstream]);
  return { gradients: all.slice(0, changed.length), back };
}
