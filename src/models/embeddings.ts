import type { State } from "./encoder.js";
import { plus } from "./ops.js";
import type { Block, Lookup, TokenBatch } from "./types.js";
import { lookUpRows } from "./weights.js";

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
}

/** Tokens that enter a model as the sum of what they are and where they stand. */
export function positionedTokens({ id, words, positions, firstPosition = 0, width }: PositionedTokens): {
  readonly block: Block<State>;
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
      shapes: new Map([words, positions].map(({ name, size }) => [name, [size, width]])),
      run: (w, state) => ({
        ...state,
        x: plus(lookUpRows(w, ofWords(state.batch)), lookUpRows(w, ofPositions(state.batch))),
      }),
    },
  };
}

/** Positions that count from another number than 0 on. */
export function shifted(positions: Int32Array, by: number): Int32Array {
  if (by === 0) return positions;
  return positions.map((position) => position + by);
}
