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
  const groups = blockwise ? model.blocks.map((block) => [block]) : [model.blocks];
  return groups.map((blocks, i) => ({ blocks, first: i === 0, last: i === groups.length - 1 }));
}

/** Activations at a block boundary, in host memory. */
export type Boundary = readonly { readonly shape: number[]; readonly values: Float32Array }[];

/** What a stage starts from: a batch, and what the stage before it left (nothing for the first). */
export interface StageInput {
  readonly batch: unknown;
  readonly boundary: Boundary;
}

export const upload = (boundary: Boundary): Tensor[] =>
  boundary.map(({ shape, values }) => tensor(values, shape, "float32"));

/** Copies tensors to host memory and disposes them. */
export async function download(tensors: readonly Tensor[]): Promise<Boundary> {
  const copies = [];
  for (const t of tensors) copies.push({ shape: t.shape, values: (await t.data()) as Float32Array });
  dispose([...tensors]);
  return copies;
}

/** Runs a stage's blocks: a pure function of the weights, the batch and what the stage before it left. */
export function runStage(
  model: Model,
  stage: Stage,
  weights: Weights,
  batch: unknown,
  carried: readonly Tensor[],
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
  return download(
    tidy(() => {
      const start = model.start(batch);
      let carried = upload(boundary);
      for (const [i, block] of stage.blocks.entries()) {
        const before = carried;
        carried = tidy(() =>
          model.carried(block.run(weights, stage.first && i === 0 ? start : model.carry(start, before))),
        );
        dispose(before.filter((t) => !carried.includes(t)));
      }
      return stage.last ? [model.features(model.carry(start, carried))] : carried;
    }),
  );
}
