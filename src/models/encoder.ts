/**
 * What models of one pipeline share: a batch of rows, the activations [tokens, width] of its tokens,
 * attention's segments.
 */
import { scalar, tensor1d, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { parametersOf } from "./dense.js";
import { layout } from "./layout.js";
import { rows } from "./ops.js";
import type { Block, KvCache, Model, SegmentBias, Generation, TokenBatch, TokenRow } from "./types.js";

export interface State {
  readonly batch: TokenBatch;
  /** Nothing yet at the start; [tokens, width] between blocks; [rows, …] after the last. */
  readonly x: Tensor;
  readonly bias: readonly SegmentBias[];
  /** While a text is being said: what has been read of it, and how that lies. */
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
  /** What follows from a batch before any block has run. */
  start(batch: TokenBatch): Omit<S, "batch" | "x" | "cache" | "keys">;
};

/** A model whose blocks hand on one array of activations. */
export function pipeline<S extends State>({
  padId,
  start,
  tables,
  expand,
  generates,
  ...rest
}: Pipeline<S>): Model<S, TokenBatch> {
  return {
    ...rest,
    parameters: parametersOf(rest.blocks),
    tables: new Set(tables),
    prepare: (given) => layout(expand ? expand(given) : given, padId, rest.width),
    carried: ({ x }) => [x],
    carry: (state, [x]) => ({ ...state, x: x! }),
    start: (batch, cache) => ({ batch, x: scalar(0), cache, keys: cache?.keys(), ...start(batch) }) as S,
    features: ({ x }) => x as Tensor2D,
    generation: generates && {
      ...generates,
      from: 0,
      side: (batch) => batch,
      follow: ({ rows: given }, said, step) =>
        layout(
          said.map((id, r) => ({ ids: [id], types: [], positions: [given[r]!.ids.length + step] })),
          padId,
          rest.width,
        ),
    },
  };
}

/** A token of every row: its first, or the one `after` that. */
export const tokenOfRows = (
  x: Tensor,
  { first, rows: given }: TokenBatch,
  after: (row: TokenBatch["rows"][number]) => number = () => 0,
): Tensor2D =>
  rows(
    x as Tensor2D,
    tensor1d(
      first.map((at, r) => at + after(given[r]!)),
      "int32",
    ),
  );
