import type { Tensor, Tensor2D } from "@tensorflow/tfjs-core";

/** Looks a weight up by its canonical name (the family's own prefix left out). */
export interface Weights {
  (name: string): Tensor;
  /** Some rows of a table, [m, width], for who need not make the whole table; absent where the table is there anyway. */
  rows?(name: string, ids: Int32Array): Tensor2D;
  /** True where nobody asks for the weight's gradient; absent where somebody may. */
  frozen?(name: string): boolean;
  /** Told what a linear layer is given, [n, in], by the name of its weight, where somebody wants to know. */
  seen?(name: string, x: Tensor2D): void;
}

/** Token ids and segment numbers of one text, without padding. */
export interface TokenRow {
  readonly ids: readonly number[];
  readonly types: readonly number[];
}

/** Some rows that are padded to one length and attended to together. */
export interface Segment {
  readonly size: number;
  readonly length: number;
  /** [size · length], 1 for a token and 0 for padding; undefined where nothing is padded. */
  readonly mask: Uint8Array | undefined;
}

/**
 * Rows of tokens on the host, sorted into segments of like length so that little is padded. The arrays hold one
 * number a token of all segments, one after the other.
 */
export interface TokenBatch {
  readonly segments: readonly Segment[];
  readonly ids: Int32Array;
  readonly types: Int32Array;
  readonly positions: Int32Array;
  /** Where each row's first token stands, in the order in which the rows were given. */
  readonly first: Int32Array;
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
  /** Those of them that are only ever read by rows: embeddings. */
  readonly tables: ReadonlySet<string>;
  readonly width: number;
  readonly heads: number;
  readonly vocabulary: number;
  readonly maxLength: number;
  readonly padId: number;
  readonly blocks: readonly Block<State>[];
  /** Which rows of which tables a batch will look up. */
  lookups(batch: TokenBatch): readonly { readonly name: string; readonly ids: Int32Array }[];
  /** The state before the first block. */
  start(batch: TokenBatch): State;
  /** The activations that a block hands to the next: all of a state that does not follow from the batch. */
  carried(state: State): Tensor[];
  /** A start state with the activations of another in it. */
  carry(start: State, carried: readonly Tensor[]): State;
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
