import { tensor1d, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { tokenOfRows, type State } from "./encoder.js";
import { rows } from "./ops.js";
import { placesOf, score } from "./readout.js";
import type { Block, Readout, Shapes, TokenRow, Weights } from "./types.js";

/** A causal language model reads its targets as it says them, all but the last. */
export const withTargets = (row: TokenRow): TokenRow => (row.targets ? { ...row, ids: [...row.ids, ...row.targets.slice(0, -1)] } : row);

export interface LastBlock {
  readonly id: string;
  /** The norm's tensors. */
  readonly shapes: Shapes;
  normalise(w: Weights, x: Tensor): Tensor2D;
  /** The output layer, [vocabulary, width]: the embedding itself, or one of its own. */
  readonly unembedding: string;
  readonly size: readonly [vocabulary: number, width: number];
}

/** What stands behind the last layer of a causal model: the norm, then a score of every row's targets, or its last token for a head. */
export function lastBlock<S extends State>(readout: Readout, { id, shapes, normalise, unembedding, size }: LastBlock): Block<S> {
  if (readout === "pool") return { id, shapes, run: (w, state) => ({ ...state, x: normalise(w, tokenOfRows(state.x, state.batch, ({ ids }) => ids.length - 1)) }) };
  return {
    id,
    shapes: new Map([...shapes, [unembedding, size]]),
    run(w, state) {
      // The rows hold their targets but the last (withTargets): the first is said by the token before them.
      const places = placesOf(state.batch, ({ ids, targets = [] }) => ids.length - targets.length);
      const said = normalise(w, rows(state.x as Tensor2D, tensor1d(places.at, "int32")));
      return { ...state, x: score(said, w(unembedding) as Tensor2D, places, w.frozen?.(unembedding)) };
    },
  };
}
