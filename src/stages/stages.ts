import { dispose, tensor, tidy, type Tensor } from "@tensorflow/tfjs-core";
import type { Block, Model, Weights } from "../models/types.js";

/** Blocks that run together: their merged weights are on the device at the same time. */
export interface Stage {
  readonly blocks: readonly Block<unknown>[];
  readonly first: boolean;
  readonly last: boolean;
}

/** The whole model as one stage, or each block as a stage of its own. */
export function stagesOf(model: Model, blockwise: boolean): Stage[] {
  if (!blockwise) return [{ blocks: model.blocks, first: true, last: true }];
  const last = model.blocks.length - 1;
  return model.blocks.map((block, i) => ({ blocks: [block], first: i === 0, last: i === last }));
}

/** Activations at a block boundary, in host memory. */
export type Boundary = readonly { readonly shape: number[]; readonly values: Float32Array }[];

/** What a stage starts from: a batch, and what the stage before it left (nothing for the first). */
export interface StageInput {
  readonly batch: unknown;
  readonly boundary: Boundary;
}

export const toTensors = (boundary: Boundary): Tensor[] =>
  boundary.map(({ shape, values }) => tensor(values, shape, "float32"));

/** Copies tensors to host memory and disposes them. */
export async function toBoundary(tensors: readonly Tensor[]): Promise<Boundary> {
  const copies = [];
  for (const t of tensors) copies.push({ shape: t.shape, values: await t.data<"float32">() });
  dispose([...tensors]);
  return copies;
}

/** What a stage's blocks begin with: a batch, and activations that the stage before it left (none for the first). */
export interface StageStart {
  readonly batch: unknown;
  readonly carried: readonly Tensor[];
}

/** Runs a stage's blocks: a pure function of the weights, the batch and what the stage before it left. */
export function runStage(
  model: Model,
  stage: Stage,
  weights: Weights,
  { batch, carried }: StageStart,
): unknown {
  const start = model.start(batch);
  return stage.blocks.reduce(
    (state, block) => block.run(weights, state),
    stage.first ? start : model.carry(start, carried),
  );
}

/**
 * A stage forward, its result in host memory: what crosses to the next stage, or the last stage's
 * features [rows, width]. A block's intermediate results are gone when it has run.
 */
export async function stageForward(
  model: Model,
  stage: Stage,
  weights: Weights,
  { batch, boundary }: StageInput,
): Promise<Boundary> {
  return toBoundary(
    tidy(() => {
      const start = model.start(batch);
      let carried = toTensors(boundary);
      for (const [i, block] of stage.blocks.entries()) {
        const before = carried;
        const isFirst = stage.first && i === 0;
        carried = tidy(() => {
          const state = isFirst ? start : model.carry(start, before);
          return model.carried(block.run(weights, state));
        });
        dispose(before.filter((t) => !carried.includes(t)));
      }
      if (!stage.last) return carried;
      return [model.features(model.carry(start, carried))];
    }),
  );
}
