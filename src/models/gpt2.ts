import { activationNames } from "./activations.js";
import { causalBiases } from "./attention.js";
import { readConfig } from "./config.js";
import { norm, normShapes } from "./dense.js";
import { endsOf, lastBlock, sharedTexts } from "./decoder.js";
import { pipeline, type State } from "./encoder.js";
import { lookup, plus } from "./ops.js";
import { preNormLayer } from "./prenorm.js";
import type { Block, BuildOptions, Config, Model, ModelFamily, TokenBatch } from "./types.js";

const lookups = ({ ids, positions }: TokenBatch) => [
  { name: "wte.weight", ids },
  { name: "wpe.weight", ids: positions },
];

function build(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const { size, positive, only, flag, heads: headsOf } = readConfig(json, "gpt2");
  only("add_cross_attention", false);
  only("scale_attn_weights", true);
  only("scale_attn_by_inverse_layer_idx", false);
  const [width, layers, vocabulary, positions] = [
    size("n_embd"),
    size("n_layer", 1, 1000),
    size("vocab_size"),
    size("n_positions"),
  ];
  const heads = headsOf("n_head", width);
  const inner = json["n_inner"] == null ? 4 * width : size("n_inner");
  const epsilon = positive("layer_norm_epsilon", 1e-5);
  const activation = only("activation_function", "gelu_new", ...activationNames);
  const tied = flag("tie_word_embeddings", true);
  const names = {
    norm1: "ln_1",
    qkv: ["attn.c_attn"],
    out: "attn.c_proj",
    norm2: "ln_2",
    up: "mlp.c_fc",
    down: "mlp.c_proj",
  };
  const embeddings: Block<State> = {
    id: "embeddings",
    shapes: new Map([
      ["wte.weight", [vocabulary, width]],
      ["wpe.weight", [positions, width]],
    ]),
    run(w, state) {
      const [words, places] = lookups(state.batch).map(({ name, ids }) => lookup(w, name, ids));
      return { ...state, x: plus(words!, places!) };
    },
  };
  const final = lastBlock<State>(outputLayer, {
    id: "ln_f",
    shapes: new Map(normShapes("ln_f", width)),
    normalise: (w, x) => norm(w, "ln_f", x, epsilon),
    unembedding: tied ? "wte.weight" : "lm_head.weight",
    size: [vocabulary, width],
  });
  return pipeline<State>({
    blocks: [
      embeddings,
      ...Array.from({ length: layers }, (_, i) =>
        preNormLayer(`h.${i}`, { width, inner, heads, epsilon, activation, names, transposed: true }),
      ),
      final,
    ],
    // A table that the output layer needs whole is no table.
    tables: outputLayer === "score" && tied ? ["wpe.weight"] : ["wte.weight", "wpe.weight"],
    width,
    heads,
    vocabulary,
    maxLength: positions,
    padId: 0,
    lookups,
    expand: sharedTexts,
    scores: outputLayer === "score" ? "decoder" : undefined,
    transposed: new Set(
      Array.from({ length: layers }, (_, i) =>
        [...names.qkv, names.out, names.up, names.down].map((name) => `h.${i}.${name}`),
      ).flat(),
    ),
    generates: outputLayer === "score" ? { ends: endsOf(json, 50256) } : undefined,
    start: (batch) => ({ bias: causalBiases(batch) }),
  });
}

/** GPT-2 (Radford et al. 2019); as a language model, or with a head on the last token (`score`). */
export const gpt2: ModelFamily = {
  types: ["gpt2"],
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  canonical: (name) => name.replace(/^transformer\./, ""),
  build,
};
