/**
 * What models of one pipeline share: a batch of rows, the activations [tokens, width] of its tokens,
 * attention's segments.
 */
import { tensor1d, tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { at, i32 } from "../at.js";
import { shapesOfBlocks } from "./dense.js";
import { layout } from "./layout.js";
import { rows } from "./ops.js";
import type { Block, KvCache, Model, SegmentBias, Generation, TokenBatch, TokenRow } from "./types.js";
import { asMatrix } from "./weights.js";

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
  "width" | "heads" | "vocabulary" | "maxLength" | "transposed" | "scores" | "image" | "lookups"
> & {
  readonly blocks: readonly Block<S>[];
  readonly tables: readonly string[];
  readonly padId: number;
  /** Rows as the blocks read them (default: as they are). */
  expand?(rows: readonly TokenRow[]): readonly TokenRow[];
  /** Of a model that generates text: what ends a text, and how far back it sees. */
  readonly generates?: Pick<Generation, "ends" | "window"> | undefined;
  /** Adds what follows from a batch before any block has run. */
  start(initial: Omit<State, "bias">): S;
};

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

/** A token of every row: its first, or the one `after` that. */
export function tokenOfRows(
  { x, batch }: Pick<State, "x" | "batch">,
  after: (row: TokenRow) => number = () => 0,
): Tensor2D {
  const tokens = Int32Array.from(batch.rows, (row, r) => i32(batch.first, r) + after(row));
  return rows(x, tensor1d(tokens, "int32"));
}
