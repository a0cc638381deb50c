import { configReader, sectionOf } from "./config.js";
import { endsOf } from "./decoder.js";
import { fusedDecoder } from "./fused-decoder.js";
import { activationNames } from "./layers.js";
import { frequencies } from "./rope.js";
import type { BuildOptions, Config, Model, ModelFamily } from "./types.js";

const words = "embed_in.weight";

/** The rotations of a config: of each head a part turns. */
function rotationsOf(json: Config, depth: number, positions: number) {
  const given = sectionOf(json, "rope_parameters");
  const usual = configReader(json, "gpt_neox").positive("rotary_pct", 0.25);
  const part = configReader({ ...json, ...given }, "gpt_neox").positive("partial_rotary_factor", usual);
  const theta = json["rope_theta"] ?? json["rotary_emb_base"] ?? 10_000;
  return frequencies({ ...json, rope_theta: theta }, depth, positions, { part });
}

function buildNeox(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const { size, positive, only, flag, heads: headsOf } = configReader(json, "gpt_neox");
  const width = size("hidden_size");
  const heads = headsOf("num_attention_heads", width);
  const positions = size("max_position_embeddings");
  const vocabulary = size("vocab_size");
  only("attention_bias", true);
  return fusedDecoder(outputLayer, {
    names: {
      words,
      unembedding: flag("tie_word_embeddings", false) ? words : "embed_out.weight",
      layers: "layers",
      attention: "attention",
      attentionNorm: "input_layernorm",
      forwardNorm: "post_attention_layernorm",
      last: "final_layer_norm",
    },
    width,
    fused: { groups: heads, queries: 1, depth: width / heads },
    layers: size("num_hidden_layers", 1, 1000),
    inner: size("intermediate_size"),
    vocabulary,
    positions,
    epsilon: positive("layer_norm_eps", 1e-5),
    activation: only("hidden_act", "gelu", ...activationNames),
    isParallel: flag("use_parallel_residual", true),
    rotations: rotationsOf(json, width / heads, positions),
    ends: endsOf(json, vocabulary, 2),
  });
}

/** GPT-NeoX and Pythia (Black et al. 2022; Biderman et al. 2023); as a language model, or with a head (`score`). */
export const gptNeox: ModelFamily = {
  types: { gpt_neox: { title: "GPT-NeoX", className: "GPTNeoX" } },
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  backbone: "gpt_neox",
  canonical: (name) => name.replace(/^gpt_neox\./, ""),
  build: buildNeox,
};
