import { activationNames, norm, normShapes } from "./layers.js";
import { causalBiases } from "./layout.js";
import { configReader } from "./config.js";
import { causalModel, endsOf } from "./decoder.js";
import { positionedTokens, type State } from "./encoder.js";
import { preNormLayers } from "./prenorm.js";
import type { BuildOptions, Config, Model, ModelFamily } from "./types.js";

const optTables = { words: "embed_tokens.weight", positions: "embed_positions.weight" };
const finalNorm = "final_layer_norm";
/** The embedding of a text's first token's position. */
const firstPosition = 2;
const optLayer = {
  norm1: "self_attn_layer_norm",
  qkv: ["q_proj", "k_proj", "v_proj"].map((name) => `self_attn.${name}`),
  out: "self_attn.out_proj",
  norm2: "final_layer_norm",
  up: "fc1",
  down: "fc2",
};

function buildOpt(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const { size, only, heads: headsOf } = configReader(json, "opt");
  only("do_layer_norm_before", true);
  only("enable_bias", true);
  only("layer_norm_elementwise_affine", true);
  const [width, layers] = [size("hidden_size"), size("num_hidden_layers", 1, 1000)];
  const [vocabulary, maxLength] = [size("vocab_size"), size("max_position_embeddings")];
  only("word_embed_proj_dim", width);
  only("tie_word_embeddings", true);
  const heads = headsOf("num_attention_heads", width);
  const epsilon = 1e-5;
  const inner = size("ffn_dim");
  const activation = only("activation_function", "relu", ...activationNames);
  const embeddings = positionedTokens({
    id: "embeddings",
    words: { name: optTables.words, size: vocabulary },
    positions: { name: optTables.positions, size: maxLength + firstPosition },
    firstPosition,
    width,
  });
  return causalModel<State>(outputLayer, {
    blocks: [
      embeddings.block,
      ...preNormLayers("layers", layers, { width, inner, heads, epsilon, activation, names: optLayer }),
    ],
    last: {
      id: finalNorm,
      shapes: new Map(normShapes(finalNorm, width)),
      normalise: (w, x) => norm(w, finalNorm, x, epsilon),
      unembedding: optTables.words,
    },
    tables: Object.values(optTables),
    width,
    heads,
    vocabulary,
    maxLength,
    padId: 1,
    lookups: embeddings.lookups,
    generates: { ends: endsOf(json, vocabulary, 2) },
    start: (initial) => ({ ...initial, bias: causalBiases(initial.batch) }),
  });
}

/** OPT (Zhang et al. 2022); as a language model, or with a head on the last token (`score`). */
export const opt: ModelFamily = {
  types: { opt: { title: "OPT", className: "OPT" } },
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  backbone: "model",
  canonical: (name) => name.replace(/^(model\.)?decoder\./, ""),
  build: buildOpt,
};
