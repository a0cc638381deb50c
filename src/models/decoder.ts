import { tensor1d, type Tensor2D } from "@tensorflow/tfjs-core";
import { pipeline, type Pipeline, type State } from "./encoder.js";
import { lessonParts } from "./lesson.js";
import { rows } from "./ops.js";
import { headInputs } from "./outputs.js";
import { predictionsOf, scoredTargets, tokenScores, unembeddingOf } from "./output-layer.js";
import type {
  Block,
  Config,
  Model,
  OutputLayer,
  Shapes,
  ScoredTargets,
  TokenBatch,
  TokenRow,
  Weights,
} from "./types.js";

/**
 * A causal language model reads its targets as it predicts them, all but the last. Rows of one text,
 * answers to a prompt, become one row: the text is read once, and the targets stand behind it side by
 * side, none seeing another (attention's bias), each at the positions that follow the text's.
 */
export function sharedTexts(given: readonly TokenRow[]): readonly TokenRow[] {
  if (!given.some(({ targets, spans }) => targets ?? spans)) return given;
  const texts = new Map<string, { ids: number[]; positions: number[]; types: []; scored: ScoredTargets[] }>();
  const conversations: TokenRow[] = [];
  for (const [row, one] of given.entries()) {
    const { ids, targets = [], mean, spans, lesson } = one;
    if (spans) {
      conversations.push(conversation(row, one, spans));
      continue;
    }
    // What a teacher says is told apart by its row.
    const key = lesson && !lesson.teacher ? `row ${row}` : ids.join();
    const text = texts.get(key) ?? { ids: [...ids], positions: ids.map((_, i) => i), types: [], scored: [] };
    texts.set(key, text);
    text.scored.push({ row, first: ids.length - 1, second: text.ids.length, targets, mean, lesson });
    text.ids.push(...targets.slice(0, -1));
    text.positions.push(...targets.slice(0, -1).map((_, t) => ids.length + t));
  }
  return [...texts.values(), ...conversations];
}

/** A row that holds all it says, in several places, and is read but for its last token. */
function conversation(
  row: number,
  { ids, lesson }: TokenRow,
  spans: NonNullable<TokenRow["spans"]>,
): TokenRow {
  const sizes = spans.map(([from, to]) => to - from);
  const lessons = lesson && lessonParts(lesson, sizes);
  const scored = spans.map(([from, to], i) => ({
    row,
    first: from - 1,
    second: from,
    targets: ids.slice(from, to),
    lesson: lessons?.[i],
  }));
  return { ids: ids.slice(0, -1), types: [], scored };
}

/** Tokens that end a text, as a config says it; one that the vocabulary does not hold is none. */
export const endsOf = (json: Config, vocabulary: number, otherwise: number): number[] =>
  [json["eos_token_id"] ?? otherwise]
    .flat()
    .filter((id): id is number => typeof id === "number" && id < vocabulary);

/** What stands behind the last layer of a causal model. */
export interface LastBlock {
  readonly id: string;
  /** The norm's tensors. */
  readonly shapes: Shapes;
  normalise(w: Weights, x: Tensor2D): Tensor2D;
  /** The output layer, [vocabulary, width]: the embedding itself, or one of its own. */
  readonly unembedding: string;
  /** What its scores are capped at (softcap.ts). */
  readonly cap?: number | undefined;
}

/** The last token of every row (or every token of it), normalised. */
const lastToken = ({ normalise }: LastBlock, w: Weights, state: State): Tensor2D =>
  normalise(
    w,
    headInputs(state, ({ ids }) => ids.length - 1),
  );

/** The norm, then every row's last token for a head, or all that it asks for. */
const poolingBlock = <S extends State>(last: LastBlock): Block<S> => ({
  id: last.id,
  shapes: last.shapes,
  run: (w, state) => ({ ...state, x: lastToken(last, w, state) }),
});

/** The norm of the tokens that predict; while text is generated, of every row's last token. */
const predictingBlock = <S extends State>(last: LastBlock): Block<S> => ({
  id: last.id,
  shapes: last.shapes,
  run(w, state) {
    if (state.cache) return { ...state, x: lastToken(last, w, state) };
    const { tokens } = predictionsOf(state.batch);
    return { ...state, x: last.normalise(w, rows(state.x, tensor1d(tokens, "int32"))) };
  },
});

/** A score of every row's targets; while text is generated, scores of every row's next token. */
const outputBlock = <S extends State>(
  { unembedding, cap }: LastBlock,
  size: readonly [number, number],
): Block<S> => ({
  id: "output",
  shapes: new Map([[unembedding, size]]),
  run(w, state) {
    const out = unembeddingOf(w, unembedding);
    if (state.cache) return { ...state, x: tokenScores(state.x, out, cap) };
    return { ...state, x: scoredTargets(state.x, out, predictionsOf(state.batch, cap)) };
  },
});

/** A causal model: its blocks up to the last layer, and what stands behind that. */
export type CausalModel<S extends State> = Omit<Pipeline<S>, "scores" | "expand" | "generates"> & {
  readonly last: LastBlock;
  readonly generates: NonNullable<Pipeline<S>["generates"]>;
};

/** As a language model (`score`), or with a head on the last token (`pool`). */
export function causalModel<S extends State>(
  outputLayer: OutputLayer,
  { last, generates, ...model }: CausalModel<S>,
): Model<S, TokenBatch> {
  const common = { ...model, expand: sharedTexts };
  if (outputLayer === "pool")
    return pipeline<S>({ ...common, blocks: [...model.blocks, poolingBlock<S>(last)] });
  const { vocabulary, width } = model;
  return pipeline<S>({
    ...common,
    blocks: [...model.blocks, predictingBlock<S>(last), outputBlock<S>(last, [vocabulary, width])],
    output: {
      weight: last.unembedding,
      cap: last.cap,
      predictions: (batch) => predictionsOf(batch, last.cap),
    },
    // A table that the output layer needs whole is no table.
    tables: model.tables.filter((name) => name !== last.unembedding),
    scores: "decoder",
    generates,
  });
}

/** The output layer's name: the embedding's where both are one. */
export function unembeddingName(isTied: boolean, embedding: string): string {
  if (isTied) return embedding;
  return "lm_head.weight";
}
