import { configReader } from "./config.js";
import { positionedTokens, pipeline, rowOutputs, type State } from "./encoder.js";
import { activationNames } from "./layers.js";
import { attentionBias } from "./layout.js";
import { postNormLayers } from "./postnorm.js";
import type { Config, Model, ModelFamily } from "./types.js";

const distilLayer = {
  qkv: ["q_lin", "k_lin", "v_lin"].map((name) => `attention.${name}`),
  out: "attention.out_lin",
  norm1: "sa_layer_norm",
  up: "ffn.lin1",
  down: "ffn.lin2",
  norm2: "output_layer_norm",
};

/** transformers has it fixed. */
const epsilon = 1e-12;

function buildDistilBert(json: Config): Model {
  const { size, only, heads: headsOf } = configReader(json, "distilbert");
  const width = size("dim");
  const heads = headsOf("n_heads", width);
  const words = { name: "embeddings.word_embeddings.weight", size: size("vocab_size") };
  const positions = { name: "embeddings.position_embeddings.weight", size: size("max_position_embeddings") };
  const embeddings = positionedTokens<State>({
    id: "embeddings",
    words,
    positions,
    width,
    norm: { module: "embeddings.LayerNorm", epsilon },
  });
  const layers = postNormLayers<State>("transformer.layer", size("n_layers", 1, 1000), {
    width,
    inner: size("hidden_dim"),
    heads,
    epsilon,
    activation: only("activation", "gelu", ...activationNames),
    names: distilLayer,
  });
  return pipeline<State>({
    blocks: [embeddings.block, ...layers, rowOutputs()],
    tables: [words.name, positions.name],
    width,
    heads,
    vocabulary: words.size,
    padId: size("pad_token_id", 0, words.size - 1, 0),
    maxLength: positions.size,
    lookups: embeddings.lookups,
    start: (initial) => ({ ...initial, bias: initial.batch.segments.map(attentionBias) }),
  });
}

/**
 * DistilBERT (Sanh et al. 2019): BERT without token types and pooler; a head is a dense layer, ReLU and the outputs.
 */
export const distilbert: ModelFamily = {
  types: { distilbert: { title: "DistilBERT", className: "DistilBert" } },
  outputLayers: ["pool"],
  head: {
    dense: "pre_classifier",
    activation: "relu",
    weight: "classifier.weight",
    bias: "classifier.bias",
  },
  backbone: "distilbert",
  canonical: (name) => name.replace(/^distilbert\./, ""),
  build: buildDistilBert,
};
