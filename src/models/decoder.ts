import { tensor1d, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { tokenOfRows, type State } from "./encoder.js";
import { rows } from "./ops.js";
import { placesOf, score, tokenScores, unembeddingOf } from "./output-layer.js";
import type { Block, Config, OutputLayer, Shapes, ScoredTargets, TokenRow, Weights } from "./types.js";

/**
 * A causal language model reads its targets as it says them, all but the last. Rows of one text,
 * answers to a prompt, become one row: the text is read once, and the targets stand behind it side by
 * side, none seeing another (attention's bias), each at the places that follow the text's.
 */
export function sharedTexts(given: readonly TokenRow[]): readonly TokenRow[] {
  if (!given.some(({ targets }) => targets)) return given;
  const texts = new Map<string, { ids: number[]; positions: number[]; types: []; scored: ScoredTargets[] }>();
  for (const [row, { ids, targets = [], mean }] of given.entries()) {
    const key = ids.join();
    const text = texts.get(key) ?? { ids: [...ids], positions: ids.map((_, i) => i), types: [], scored: [] };
    texts.set(key, text);
    text.scored.push({ row, first: ids.length - 1, second: text.ids.length, targets, mean });
    text.ids.push(...targets.slice(0, -1));
    text.positions.push(...targets.slice(0, -1).map((_, t) => ids.length + t));
  }
  return [...texts.values()];
}

/** Tokens that end a text, as a config says it; one that the vocabulary does not hold is none. */
export const endsOf = (json: Config, otherwise: number): number[] =>
  [json["eos_token_id"] ?? otherwise]
    .flat()
    .filter((id): id is number => typeof id === "number" && id < (json["vocab_size"] as number));

export interface LastBlock {
  readonly id: string;
  /** The norm's tensors. */
  readonly shapes: Shapes;
  normalise(w: Weights, x: Tensor): Tensor2D;
  /** The output layer, [vocabulary, width]: the embedding itself, or one of its own. */
  readonly unembedding: string;
  readonly size: readonly [vocabulary: number, width: number];
}

/**
 * What stands behind the last layer of a causal model: the norm, then a score of every row's targets,
 * or its last token for a head.
 */
export function lastBlock<S extends State>(
  outputLayer: OutputLayer,
  { id, shapes, normalise, unembedding, size }: LastBlock,
): Block<S> {
  if (outputLayer === "pool")
    return {
      id,
      shapes,
      run: (w, state) => ({
        ...state,
        x: normalise(
          w,
          tokenOfRows(state.x, state.batch, ({ ids }) => ids.length - 1),
        ),
      }),
    };
  return {
    id,
    shapes: new Map([...shapes, [unembedding, size]]),
    run(w, state) {
      const out = unembeddingOf(w, unembedding);
      if (state.cache)
        return {
          ...state,
          x: tokenScores(
            normalise(
              w,
              tokenOfRows(state.x, state.batch, ({ ids }) => ids.length - 1),
            ),
            out,
          ),
        };
      const places = placesOf(state.batch);
      const said = normalise(w, rows(state.x as Tensor2D, tensor1d(places.at, "int32")));
      return { ...state, x: score(said, out, places) };
    },
  };
}
