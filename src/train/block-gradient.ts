/** The gradient of one block's coefficients: how far what it makes is from what it should make. */
import {
  add,
  dispose,
  engine,
  keep,
  mul,
  reshape,
  tidy,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at, f32 } from "../at.js";
import type { MergeContext } from "../evaluate/baselines.js";
import { makeTable, type Table } from "../merge/table.js";
import { squaredError } from "../models/losses.js";
import type { Model } from "../models/types.js";
import {
  openStage,
  runStage,
  toTensors,
  type Boundary,
  type Stage,
  type StageWeights,
} from "../stages/stages.js";
import { addGradients, addToTable, readGradients } from "./step.js";

/** Rows of one length that go through the model together: none is padded, so that every activation counts. */
export interface BlockPass {
  readonly batch: unknown;
  /** What the merged blocks so far made of it, the expert's own, and the expert's with the block in hand. */
  merged: Boundary;
  own: Boundary;
  target: Boundary;
}

/** What a block makes: what it hands on, or the features of the last. */
const madeBy = (model: Model, { last }: Stage, state: unknown): Tensor[] =>
  last ? [model.features(state)] : model.carried(state);

const sizeOf = (boundary: Boundary): number => boundary.reduce((all, { values }) => all + values.length, 0);

const flat = (t: Tensor): Tensor2D => reshape(t, [1, -1]);

/** A block with its weights merged. */
interface OpenBlock {
  readonly model: Model;
  readonly stage: Stage;
  readonly opened: StageWeights;
}

/** Mean squared distance of what a block makes from its target, and its gradient by the block's weights. */
function passGradient(
  { model, stage, opened: { weights, changed } }: OpenBlock,
  pass: BlockPass,
  share: number,
): { gradients: (Tensor | undefined)[]; loss: Tensor } {
  const [carried, target] = [toTensors(pass.merged), toTensors(pass.target)];
  const losses: Tensor[] = [];
  const gradients = tidy(
    () =>
      engine().gradients(
        () => {
          const made = madeBy(model, stage, runStage(model, stage, weights, { batch: pass.batch, carried }));
          const apart = made.map((t, i) => mul(squaredError(flat(t), flat(at(target, i))), share * t.size));
          const loss = apart.reduce((a, b) => add(a, b));
          losses.push(keep(reshape(loss, [1])));
          return loss;
        },
        changed.map(({ tensor }) => tensor),
      ).grads,
  );
  dispose([...carried, ...target]);
  return { gradients, loss: at(losses, 0) };
}

/** The losses of a step, and their gradient with respect to the coefficients of a block. */
export async function blockGradient(
  { place: { model, vectors }, table }: { readonly place: MergeContext; readonly table: Table },
  stage: Stage,
  jobs: readonly { readonly weight: number; readonly passes: readonly BlockPass[] }[],
): Promise<{ gradient: Table; losses: number[] }> {
  const passes = jobs.flatMap((job) => job.passes);
  const opened = await openStage(
    { model, vectors, table },
    stage,
    passes.map(({ batch }) => batch),
  );
  const losses: Tensor[] = [];
  let total: (Tensor | undefined)[] = [];
  try {
    for (const { weight, passes: own } of jobs) {
      const share = weight / own.reduce((all, { target }) => all + sizeOf(target), 0);
      for (const pass of own) {
        const { gradients, loss } = passGradient({ model, stage, opened }, pass, share);
        total = addGradients(total, gradients);
        losses.push(loss);
      }
    }
  } finally {
    opened.dispose();
  }
  const { products, passLosses } = await readGradients(vectors, opened.changed, total, losses);
  const gradient = makeTable(table.rows, table.columns, () => 0);
  addToTable(gradient, products, vectors);
  let pass = 0;
  const sums = jobs.map(({ passes: own }) => own.reduce((all) => all + f32(passLosses, pass++), 0));
  return { gradient, losses: sums };
}
