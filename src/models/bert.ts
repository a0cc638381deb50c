import { tanh, type Tensor2D } from "@tensorflow/tfjs-core";
import { activationNames, activations } from "./activations.js";
import { attention, attentionBias } from "./attention.js";
import { readConfig } from "./config.js";
import { dense, denseShapes, norm, normShapes } from "./dense.js";
import { pipeline, tokenOfRows, type State } from "./encoder.js";
import { lookup, plus } from "./ops.js";
import type { Block, Config, Model, ModelFamily, TokenBatch } from "./types.js";

function parse(json: Config, type: string) {
  const { size, positive, only, heads } = readConfig(json, type);
  only("position_embedding_type", "absolute");
  const hidden = size("hidden_size");
  return {
    hidden,
    layers: size("num_hidden_layers", 1, 1000),
    heads: heads("num_attention_heads", hidden),
    intermediate: size("intermediate_size"),
    vocabulary: size("vocab_size"),
    positions: size("max_position_embeddings"),
    types: size("type_vocab_size"),
    epsilon: positive("layer_norm_eps", 1e-12),
    activation: activations[only("hidden_act", "gelu", ...activationNames)],
  };
}
type BertConfig = ReturnType<typeof parse>;

const tables = ["word_embeddings", "position_embeddings", "token_type_embeddings"].map(
  (table) => `embeddings.${table}.weight`,
);

/** @param offset number of the position embedding that a row's first token gets */
const lookups = ({ ids, positions, types }: TokenBatch, offset: number) =>
  [ids, offset === 0 ? positions : positions.map((p) => p + offset), types].map((indices, i) => ({
    name: tables[i]!,
    ids: indices,
  }));

function embeddings(
  { hidden, vocabulary, positions, types, epsilon }: BertConfig,
  offset: number,
): Block<State> {
  return {
    id: "embeddings",
    shapes: new Map<string, readonly number[]>([
      ...tables.map((table, i) => [table, [[vocabulary, positions, types][i]!, hidden]] as const),
      ...normShapes("embeddings.LayerNorm", hidden),
    ]),
    run(w, state) {
      const [words, places, kinds] = lookups(state.batch, offset).map(({ name, ids }) =>
        lookup(w, name, ids),
      );
      return { ...state, x: norm(w, "embeddings.LayerNorm", plus(plus(words!, kinds!), places!), epsilon) };
    },
  };
}

/** One encoder layer, post-norm: attention, add and norm, feed-forward, add and norm. */
function encoderLayer(
  { hidden, intermediate, heads, epsilon, activation }: BertConfig,
  index: number,
): Block<State> {
  const at = `encoder.layer.${index}`;
  const projections = ["query", "key", "value"].map((name) => `${at}.attention.self.${name}`);
  const [output, outputNorm, inner, outer, outerNorm] = [
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
  ].map((name) => `${at}.${name}`) as [string, string, string, string, string];
  return {
    id: at,
    shapes: new Map([
      ...projections.flatMap((module) => denseShapes(module, hidden, hidden)),
      ...denseShapes(output, hidden, hidden),
      ...normShapes(outputNorm, hidden),
      ...denseShapes(inner, intermediate, hidden),
      ...denseShapes(outer, hidden, intermediate),
      ...normShapes(outerNorm, hidden),
    ]),
    run(w, state) {
      const { x, bias } = state;
      const seen = attention(dense(w, x, projections), bias, heads);
      const attended = norm(w, outputNorm, plus(dense(w, seen, output), x as Tensor2D), epsilon);
      return {
        ...state,
        x: norm(
          w,
          outerNorm,
          plus(dense(w, activation(dense(w, attended, inner)), outer), attended),
          epsilon,
        ),
      };
    },
  };
}

/** The first token of every row, through a dense layer and tanh. */
const pooler = (hidden: number): Block<State> => ({
  id: "pooler",
  shapes: new Map(denseShapes("pooler.dense", hidden, hidden)),
  run: (w, state) => ({ ...state, x: tanh(dense(w, tokenOfRows(state.x, state.batch), "pooler.dense")) }),
});

/** The first token of every row as it is: its dense layer belongs to the head. */
const firstToken: Block<State> = {
  id: "first token",
  shapes: new Map(),
  run: (_, state) => ({ ...state, x: tokenOfRows(state.x, state.batch) }),
};

function build(json: Config, type: string): Model {
  const config = parse(json, type);
  const { hidden, layers, heads, vocabulary } = config;
  const roberta = type !== "bert";
  const padId = readConfig(json, type).size("pad_token_id", 0, vocabulary - 1, roberta ? 1 : 0);
  const offset = roberta ? padId + 1 : 0;
  return pipeline<State>({
    blocks: [
      embeddings(config, offset),
      ...Array.from({ length: layers }, (_, i) => encoderLayer(config, i)),
      roberta ? firstToken : pooler(hidden),
    ],
    tables,
    width: hidden,
    heads,
    vocabulary,
    padId,
    maxLength: config.positions - offset,
    lookups: (batch) => lookups(batch, offset),
    start: (batch) => ({ bias: batch.segments.map(attentionBias) }),
  });
}

const older = (name: string): string =>
  name.replace(/LayerNorm\.gamma$/, "LayerNorm.weight").replace(/LayerNorm\.beta$/, "LayerNorm.bias");

/** BERT (Devlin et al. 2018) as transformers' `BertModel` with pooler; heads `classifier.*`. */
export const bert: ModelFamily = {
  types: ["bert"],
  outputLayers: ["pool"],
  head: { weight: "classifier.weight", bias: "classifier.bias" },
  canonical: (name) => older(name.replace(/^bert\./, "")),
  build: (json) => build(json, "bert"),
};

/**
 * RoBERTa (Liu et al. 2019), XLM-R too: positions count from the padding id on; a head is a dense layer, tanh and the
 * outputs, whether transformers calls the first of them the head's own (classification) or a pooler (choices).
 */
export const roberta: ModelFamily = {
  types: ["roberta", "xlm-roberta", "camembert"],
  outputLayers: ["pool"],
  head: { dense: "classifier.dense", weight: "classifier.out_proj.weight", bias: "classifier.out_proj.bias" },
  canonical: (name) =>
    older(
      name
        .replace(/^(roberta|model)\./, "")
        .replace(/^pooler\.dense\./, "classifier.dense.")
        .replace(/^classifier\.(weight|bias)$/, "classifier.out_proj.$1"),
    ),
  build: (json) => build(json, "roberta"),
};
