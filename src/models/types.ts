import type { Tensor, Tensor2D } from "@tensorflow/tfjs-core";
import type { AdapterModule } from "../adapter-modules.js";
import type { Lesson, Predictions } from "./lesson.js";

/** Looks a weight up by its canonical name (the family's own prefix left out). */
export interface Weights {
  (name: string): Tensor;
  /** Some rows of a table, [m, width], where the whole table need not be made; absent where it is there anyway. */
  rows?(name: string, ids: Int32Array): Tensor2D;
  /**
   * A matrix in pieces of its rows, one below the other, where it may be too large for one tensor;
   * absent where it never is.
   */
  pieces?(name: string): readonly Tensor2D[];
  /** True where nobody asks for the weight's gradient; absent where somebody may. */
  frozen?(name: string): boolean;
  /** Called with what a linear layer is given, [n, in], and the name of its weight. */
  onLinearInput?(name: string, x: Tensor2D): void;
  /** What stands beside a linear layer, where something does: see models/adapters.ts. */
  adapterOf?(module: string): AdapterModule | undefined;
}

/** One row of a model's input, without padding: a text, or an image. */
export interface TokenRow {
  /** Token ids; of an image, the positions of its tokens: 0 for the class token, then a patch each. */
  readonly ids: readonly number[];
  /** Segment numbers. */
  readonly types: readonly number[];
  /** What follows `ids`: a language model scores the row by the log-probability of these. */
  readonly targets?: readonly number[] | undefined;
  /** Parts of `ids` that are to be said, in place of `targets`: the turns of a conversation, from and to before. */
  readonly spans?: readonly (readonly [from: number, to: number])[] | undefined;
  /** Whether it is scored by the mean over its targets, not by their sum. */
  readonly mean?: boolean | undefined;
  /** What a teacher is asked of its targets, or has said of them: then that is what it is scored by. */
  readonly lesson?: Lesson | undefined;
  /** The positions of `ids` in their text (default: 0, 1, …). */
  readonly positions?: readonly number[] | undefined;
  /** Of a row that holds targets of several rows behind one text: see models/decoder.ts. */
  readonly scored?: readonly ScoredTargets[] | undefined;
  /** Its head is put to every token of it, not to one (models/outputs.ts). */
  readonly everyToken?: true | undefined;
  /** An image's patches, [patches, channels · height · width] in rows, normalised; made when a pass reads them. */
  readonly patches?: (() => Float32Array) | undefined;
}

/** Targets as they stand behind a text. */
export interface ScoredTargets {
  /** The row they are of, in the order in which rows were given. */
  readonly row: number;
  /**
   * The token of its row that predicts the first of them, and the one that predicts the second; from there
   * on they follow each other.
   */
  readonly first: number;
  readonly second: number;
  readonly targets: readonly number[];
  readonly mean?: boolean | undefined;
  /** That of these targets alone. */
  readonly lesson?: Lesson | undefined;
}

/** Some rows that are padded to one length and attended to together. */
export interface SegmentShape {
  /** How many rows. */
  readonly size: number;
  /** Tokens of each. */
  readonly length: number;
}

export interface Segment extends SegmentShape {
  /** [size · length], 1 for a token and 0 for padding; undefined where nothing is padded. */
  readonly mask: Uint8Array | undefined;
}

/** A segment as attention needs it. */
export interface SegmentBias extends SegmentShape {
  /**
   * Added to the scores, [size or 1, 1, 1 or length, length]: 0 where a token may be seen, very
   * negative where not.
   */
  readonly bias: Tensor | undefined;
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
  /** The rows in the order in which they lie. */
  readonly order: readonly number[];
  /** The rows themselves, in the order in which they were given. */
  readonly rows: readonly TokenRow[];
}

/** One step of the pipeline: a pure function of the weights it names and the state before it. */
export interface Block<State> {
  readonly id: string;
  /** Canonical name and shape of every tensor it reads. */
  readonly shapes: Shapes;
  run(weights: Weights, state: State): State;
}

export type Shapes = ReadonlyMap<string, readonly number[]>;

/** Rows of a table that are looked up, one a token. */
export interface Lookup {
  readonly name: string;
  readonly ids: Int32Array;
}

/** A block that is an output layer and nothing else: what reaches it are the activations of tokens that predict. */
export interface OutputBlock<Batch> {
  /** [vocabulary, width] */
  readonly weight: string;
  /** What its scores are capped at (softcap.ts). */
  readonly cap?: number | undefined;
  predictions(batch: Batch): Predictions;
}

/**
 * A model for one config: a pipeline of blocks from a batch to features, [rows, width]; of rows that ask for every
 * token's, a vector a token.
 */
export interface Model<State = unknown, Batch = unknown> {
  /** Canonical name and shape of every tensor the forward reads, in order. */
  readonly parameters: Shapes;
  /** Those of them that are only ever read by rows: embeddings. */
  readonly tables: ReadonlySet<string>;
  readonly width: number;
  readonly heads: number;
  readonly vocabulary: number;
  readonly maxLength: number;
  readonly blocks: readonly Block<State>[];
  /** Linear layers whose weight is stored [in, out], by module. */
  readonly transposed?: ReadonlySet<string> | undefined;
  /** Features are [rows, 1], the log-probability of each row's targets: it needs no head. */
  readonly scores?: "decoder" | "encoder-decoder" | undefined;
  /** Arrays of attention's scores that a layer keeps for its backward. Default: one. */
  readonly keptScores?: number | undefined;
  /** Its output layer, where that is the last block alone: it may be run in pieces (stages/output.ts). */
  readonly output?: OutputBlock<Batch> | undefined;
  /** How it generates text, where it can. */
  readonly generation?: Generation<Batch> | undefined;
  /** Linear layers with an adapter beside them, by module (models/adapters.ts). */
  readonly adapters?: ReadonlyMap<string, AdapterModule> | undefined;
  /** Of a model that sees images: how they are cut. */
  readonly image?: ImageShape | undefined;
  /** Lays rows out for its blocks, on the host. */
  prepare(rows: readonly TokenRow[]): Batch;
  /** Which rows of which tables a batch will look up. */
  lookups(batch: Batch): readonly Lookup[];
  /**
   * The state before the first block. With a KV cache, the last block gives every row's scores of its
   * next token, [rows, vocabulary].
   */
  start(batch: Batch, cache?: KvCache): State;
  /** The activations that a block hands to the next: all of a state that does not follow from the batch. */
  carried(state: State): Tensor[];
  /** A start state with the activations of another in it. */
  carry(start: State, carried: readonly Tensor[]): State;
  features(state: State): Tensor2D;
}

/** What a language model needs to go on from what it has read: evaluate/generate.ts runs it. */
export interface Generation<Batch = unknown> {
  /** The block where a further token enters; those before it read the text, once. */
  readonly firstBlock: number;
  /** Tokens that end a text. */
  readonly ends: readonly number[];
  /**
   * The batch that reads one more token of each row of the batch it began with.
   * @param step how many it has read so far
   */
  nextBatch(batch: Batch, tokens: readonly number[], step: number): Batch;
  /** The rows of a batch whose keys and values are cached: those of the decoder. */
  cachedRows(batch: Batch): TokenBatch;
}

/** Keys and values of what has been read: see models/kv-cache.ts. */
export interface KvCache {
  /**
   * How the keys of a pass lie, a segment of queries each; undefined in the first, which looks at its own.
   * @param window how far back a token sees (default: to the beginning)
   */
  keys(window?: number): readonly SegmentBias[] | undefined;
  /** A layer's keys and values of all that has been read, these new ones among them. */
  extend(layer: string, k: Tensor2D, v: Tensor2D): readonly [k: Tensor2D, v: Tensor2D];
  /** What is made in the first pass, and the same in every one after it. */
  reuse(name: string, make: () => Tensor2D): Tensor2D;
}

export interface ImageShape {
  /** Of a side. What is beyond the last whole patch is not looked at. */
  readonly size: number;
  readonly patch: number;
  readonly channels: number;
  /** There is no class token in front of the patches. */
  readonly hasNoClassToken?: boolean | undefined;
  /** Images may be of another size, in whole patches: embeddings of positions are interpolated. */
  readonly resizable?: boolean | undefined;
}

/** What a family can be asked to make of a row: features for a head (`pool`), or a score of its targets (`score`). */
export type OutputLayer = "pool" | "score";

/** A task head's tensors, by their canonical names. */
export interface HeadNames {
  readonly weight: string;
  readonly bias?: string | undefined;
  /** A dense layer in front of it, with an activation behind. */
  readonly dense?: string | undefined;
  /** What transformers calls that layer where it scores choices, of heads in RoBERTa's form. */
  readonly denseOfChoice?: string | undefined;
  /** That activation. Default: tanh. */
  readonly activation?: "gelu" | "relu" | undefined;
}

/** A kind of checkpoint that a family reads. */
export interface CheckpointType {
  /** What such models are called, in messages. */
  readonly title: string;
  /**
   * What transformers' classes with a head begin with, such as Bert in BertForSequenceClassification; absent
   * where none of them has this family's head.
   */
  readonly className?: string | undefined;
}

/** What a model family knows about its checkpoints. One file a family; the list is in models/index.ts. */
export interface ModelFamily {
  /** The checkpoints that it reads, by `model_type` in config.json. */
  readonly types: Readonly<Record<string, CheckpointType>>;
  /** Task head tensors, which are kept per task and never merged; none for a family that only scores. */
  readonly head?: HeadNames | undefined;
  /**
   * A dense layer and tanh that the family's models have behind their last layer. Where a base or an expert has none
   * (one that was saved without, or that answers token by token), it belongs to the heads that have it.
   */
  readonly pooler?: string | undefined;
  /** What transformers' classes with a head put before the backbone's names; absent where none has this head. */
  readonly backbone?: string | undefined;
  /** What it can be read as, the customary one first. */
  readonly outputLayers: readonly OutputLayer[];
  /** Tensors that an expert may lack: then they are the base's. */
  readonly inherited?: readonly string[] | undefined;
  /** Tensors that the forward leaves out, because they are 0 in every model that is known: others are refused. */
  readonly zeros?: readonly string[] | undefined;
  /** A checkpoint's tensor name without its prefix, in its modern spelling. */
  canonical(name: string): string;
  /** @throws UserError naming the setting that is not supported. */
  build(config: Config, options?: BuildOptions): Model;
}

export interface BuildOptions {
  /** Default: the family's customary one. */
  readonly outputLayer?: OutputLayer | undefined;
  /** The family's pooler is none of the model's: the heads have it. */
  readonly withoutPooler?: boolean | undefined;
  /**
   * Whether the checkpoint holds a tensor of this canonical name, where a config does not tell all
   * (default: it is what the config says).
   */
  readonly has?: ((name: string) => boolean) | undefined;
}

export type Config = Readonly<Record<string, unknown>>;
