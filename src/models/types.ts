import type { Tensor, Tensor2D } from "@tensorflow/tfjs-core";

/** Looks a weight up by its canonical name (the family's own prefix left out). */
export type Weights = (name: string) => Tensor;

/** Token rows on the host, padded to the longest: every array is [size · length], row by row. */
export interface TokenBatch {
  readonly size: number;
  readonly length: number;
  readonly ids: Int32Array;
  readonly types: Int32Array;
  /** 1 for a token, 0 for padding. */
  readonly mask: Uint8Array;
}

/** One step of the pipeline: a pure function of the weights it names and the state before it. */
export interface Block<State> {
  readonly id: string;
  readonly names: readonly string[];
  run(weights: Weights, state: State): State;
}

/** A model for one config: a pipeline of blocks from a batch to features [size, width]. */
export interface Model<State = unknown> {
  /** Canonical name and shape of every tensor the forward reads, in order. */
  readonly parameters: ReadonlyMap<string, readonly number[]>;
  readonly width: number;
  readonly vocabulary: number;
  readonly maxLength: number;
  readonly padId: number;
  readonly blocks: readonly Block<State>[];
  /** The state before the first block. */
  start(batch: TokenBatch): State;
  features(state: State): Tensor2D;
}

/** What a model family knows about its checkpoints. One file a family; the list is in models/index.ts. */
export interface ModelFamily {
  /** `model_type` in config.json. */
  readonly type: string;
  /** Task head tensors, which are kept per task and never merged. */
  readonly head: { readonly weight: string; readonly bias: string };
  /** A checkpoint's tensor name without its prefix, in its modern spelling. */
  canonical(name: string): string;
  /** @throws UserError naming the setting that is not supported. */
  build(config: Readonly<Record<string, unknown>>): Model;
}
