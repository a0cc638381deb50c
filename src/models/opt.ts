import { activationNames } from "./activations.js";
import { causalBiases } from "./attention.js";
import { readConfig } from "./config.js";
import { endsOf, lastBlock, sharedTexts } from "./decoder.js";
import { norm, normShapes } from "./dense.js";
import { pipeline, type State } from "./encoder.js";
import { lookup, plus } from "./ops.js";
import { preNormLayer } from "./prenorm.js";
import type { Block, BuildOptions, Config, Model, ModelFamily, TokenBatch } from "./types.js";

const [words, places] = ["embed_tokens.weight", "embed_positions.weight"];
/** Positions count from 2 on. */
const lookups = ({ ids, positions }: TokenBatch) => [
  { name: words, ids },
  { name: places, ids: positions.map((p) => p + 2) },
];
const names = {
  norm1: "self_attn_layer_norm",
  qkv: ["q_proj", "k_proj", "v_proj"].map((name) => `self_attn.${name}`),
  out: "self_attn.out_proj",
  norm2: "final_layer_norm",
  up: "fc1",
  down: "fc2",
};

function build(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const { size, only, heads: headsOf } = readConfig(json, "opt");
  only("do_layer_norm_before", true);
  only("enable_bias", true);
  only("layer_norm_elementwise_affine", true);
  const [width, layers, vocabulary, positions] = [
    size("hidden_size"),
    size("num_hidden_layers", 1, 1000),
    size("vocab_size"),
    size("max_position_embeddings"),
  ];
  only("word_embed_proj_dim", width);
  only("tie_word_embeddings", true);
  const heads = headsOf("num_attention_heads", width);
  const layer = {
    width,
    inner: size("ffn_dim"),
    heads,
    epsilon: 1e-5,
    activation: only("activation_function", "relu", ...activationNames),
    names,
  };
  const embeddings: Block<State> = {
    id: "embeddings",
    shapes: new Map([
      [words, [vocabulary, width]],
      [places, [positions + 2, width]],
    ]),
    run(w, state) {
      const [tokens, at] = lookups(state.batch).map(({ name, ids }) => lookup(w, name, ids));
      return { ...state, x: plus(tokens!, at!) };
    },
  };
  const final = lastBlock<State>(outputLayer, {
    id: "final_layer_norm",
    shapes: new Map(normShapes("final_layer_norm", width)),
    normalise: (w, x) => norm(w, "final_layer_norm", x, 1e-5),
    unembedding: words,
    size: [vocabulary, width],
  });
  return pipeline<State>({
    blocks: [
      embeddings,
      ...Array.from({ length: layers }, (_, i) => preNormLayer(`layers.${i}`, layer)),
      final,
    ],
    tables: outputLayer === "score" ? [places] : [words, places],
    width,
    heads,
    vocabulary,
    maxLength: positions,
    padId: 1,
    lookups,
    scores: outputLayer === "score" ? "decoder" : undefined,
    expand: sharedTexts,
    generates: outputLayer === "score" ? { ends: endsOf(json, 2) } : undefined,
    start: (batch) => ({ bias: causalBiases(batch) }),
  });
}

/** OPT (Zhang et al. 2022); as a language model, or with a head on the last token (`score`). */
export const opt: ModelFamily = {
  types: ["opt"],
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  canonical: (name) => name.replace(/^(model\.)?decoder\./, ""),
  build,
};
