/**
 * What models of one pipeline share: a batch of rows, the activations [tokens, width] of its tokens,
 * attention's segments.
 */
import { headInputs } from "./outputs.js";
import { plus } from "./ops.js";
import type {
  Block,
  Lookup,
  TokenBatch,
  KvCache,
  Model,
  SegmentBias,
  Generation,
  TokenRow,
} from "./types.js";
import { asMatrix, lookUpRows, norm, normShapes, shapesOfBlocks, type NamedShape } from "./layers.js";
import { tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { layout } from "./layout.js";

/** A table of embeddings, [size, width]. */
export interface EmbeddingTable {
  readonly name: string;
  readonly size: number;
}

export interface PositionedTokens {
  /** The block's. */
  readonly id: string;
  readonly words: EmbeddingTable;
  readonly positions: EmbeddingTable;
  /** The position that a row's first token has. */
  readonly firstPosition?: number | undefined;
  readonly width: number;
  /** A layer normalisation behind them. */
  readonly norm?: { readonly module: string; readonly epsilon: number } | undefined;
}

/** Tokens that enter a model as the sum of what they are and where they stand. */
export function positionedTokens<S extends State>({
  id,
  words,
  positions,
  firstPosition = 0,
  width,
  norm: normed,
}: PositionedTokens): {
  readonly block: Block<S>;
  /** Which rows of the tables a batch looks up. */
  lookups(batch: TokenBatch): Lookup[];
} {
  const ofWords = ({ ids }: TokenBatch): Lookup => ({ name: words.name, ids });
  const ofPositions = (batch: TokenBatch): Lookup => ({
    name: positions.name,
    ids: shifted(batch.positions, firstPosition),
  });
  return {
    lookups: (batch) => [ofWords(batch), ofPositions(batch)],
    block: {
      id,
      shapes: new Map([
        ...[words, positions].map(({ name, size }): NamedShape => [name, [size, width]]),
        ...(normed ? normShapes(normed.module, width) : []),
      ]),
      run(w, state) {
        const x = plus(lookUpRows(w, ofWords(state.batch)), lookUpRows(w, ofPositions(state.batch)));
        return { ...state, x: normed ? norm(w, normed.module, x, normed.epsilon) : x };
      },
    },
  };
}

/** Positions that count from another number than 0 on. */
export function shifted(positions: Int32Array, by: number): Int32Array {
  if (by === 0) return positions;
  return positions.map((position) => position + by);
}

export interface State {
  readonly batch: TokenBatch;
  /** Nothing yet at the start ({@link noActivations}); [tokens, width] between blocks; [rows, …] after the last. */
  readonly x: Tensor2D;
  readonly bias: readonly SegmentBias[];
  /** While text is generated: what has been read of it, and how that lies. */
  readonly cache?: KvCache | undefined;
  readonly keys?: readonly SegmentBias[] | undefined;
}

/** What a family says of itself beside its blocks. */
export type Pipeline<S extends State> = Pick<
  Model<S, TokenBatch>,
  | "width"
  | "heads"
  | "vocabulary"
  | "maxLength"
  | "transposed"
  | "scores"
  | "image"
  | "lookups"
  | "output"
  | "keptScores"
> & {
  readonly blocks: readonly Block<S>[];
  readonly tables: readonly string[];
  readonly padId: number;
  /** Rows as the blocks read them (default: as they are). */
  expand?(rows: readonly TokenRow[]): readonly TokenRow[];
  /** Of a model that generates text: what ends a text. */
  readonly generates?: Pick<Generation, "ends"> | undefined;
  /** Adds what follows from a batch before any block has run. */
  start(initial: Omit<State, "bias">): S;
};

/** The last block of a model whose heads are given its activations as they are: a row's first token, or every one. */
export const rowOutputs = <S extends State>(): Block<S> => ({
  id: "outputs",
  shapes: new Map(),
  run: (_, state) => ({ ...state, x: headInputs(state) }),
});

/** A state's activations before its first block, which does not look at them. */
export const noActivations = (): Tensor2D => tensor2d([0], [1, 1]);

/** A model whose blocks hand on one array of activations. */
export function pipeline<S extends State>({
  padId,
  start,
  tables,
  expand = (given) => given,
  generates,
  ...rest
}: Pipeline<S>): Model<S, TokenBatch> {
  return {
    ...rest,
    parameters: shapesOfBlocks(rest.blocks),
    tables: new Set(tables),
    prepare: (given) => layout(expand(given), padId, rest.width),
    carried: ({ x }) => [x],
    carry: (state, [x]) => ({ ...state, x: asMatrix(x, "activations") }),
    start: (batch, cache) => start({ batch, x: noActivations(), cache, keys: cache?.keys() }),
    features: ({ x }) => x,
    generation: generates && {
      ...generates,
      firstBlock: 0,
      cachedRows: (batch) => batch,
      nextBatch: ({ rows: given }, tokens, step) =>
        layout(
          given.map((row, r) => ({ ids: [at(tokens, r)], types: [], positions: [row.ids.length + step] })),
          padId,
          rest.width,
        ),
    },
  };
}
