import { activationNames, norm, normShapes } from "./layers.js";
import { causalBiases } from "./layout.js";
import { configReader } from "./config.js";
import { causalModel, endsOf, unembeddingName } from "./decoder.js";
import { positionedTokens, type State } from "./encoder.js";
import { preNormLayers } from "./prenorm.js";
import type { BuildOptions, Config, Model, ModelFamily } from "./types.js";

const gpt2Tables = { words: "wte.weight", positions: "wpe.weight" };
const gpt2Layer = {
  norm1: "ln_1",
  qkv: ["attn.c_attn"],
  out: "attn.c_proj",
  norm2: "ln_2",
  up: "mlp.c_fc",
  down: "mlp.c_proj",
};

function parseGpt2(json: Config) {
  const { size, positive, only, flag, heads } = configReader(json, "gpt2");
  only("add_cross_attention", false);
  only("scale_attn_weights", true);
  only("scale_attn_by_inverse_layer_idx", false);
  const width = size("n_embd");
  return {
    width,
    layers: size("n_layer", 1, 1000),
    vocabulary: size("vocab_size"),
    maxLength: size("n_positions"),
    heads: heads("n_head", width),
    // null, as transformers writes it where it follows from the width, counts as absent.
    inner: size("n_inner", 1, 1e6, 4 * width),
    epsilon: positive("layer_norm_epsilon", 1e-5),
    activation: only("activation_function", "gelu_new", ...activationNames),
    isTied: flag("tie_word_embeddings", true),
  };
}

function buildGpt2(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const { layers, maxLength, isTied, ...form } = parseGpt2(json);
  const { width, vocabulary, epsilon, heads } = form;
  const embeddings = positionedTokens({
    id: "embeddings",
    words: { name: gpt2Tables.words, size: vocabulary },
    positions: { name: gpt2Tables.positions, size: maxLength },
    width,
  });
  const linearLayers = [...gpt2Layer.qkv, gpt2Layer.out, gpt2Layer.up, gpt2Layer.down];
  return causalModel<State>(outputLayer, {
    blocks: [
      embeddings.block,
      ...preNormLayers("h", layers, { ...form, names: gpt2Layer, transposed: true }),
    ],
    last: {
      id: "ln_f",
      shapes: new Map(normShapes("ln_f", width)),
      normalise: (w, x) => norm(w, "ln_f", x, epsilon),
      unembedding: unembeddingName(isTied, gpt2Tables.words),
    },
    tables: Object.values(gpt2Tables),
    width,
    heads,
    vocabulary,
    maxLength,
    padId: 0,
    lookups: embeddings.lookups,
    transposed: new Set(
      Array.from({ length: layers }, (_, i) => linearLayers.map((name) => `h.${i}.${name}`)).flat(),
    ),
    generates: { ends: endsOf(json, vocabulary, 50256) },
    start: (initial) => ({ ...initial, bias: causalBiases(initial.batch) }),
  });
}

/** GPT-2 (Radford et al. 2019); as a language model, or with a head on the last token (`score`). */
export const gpt2: ModelFamily = {
  types: { gpt2: { title: "GPT-2", className: "GPT2" } },
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  backbone: "transformer",
  // transformers' class for tokens calls its head "classifier".
  canonical: (name) => name.replace(/^transformer\./, "").replace(/^classifier\./, "score."),
  build: buildGpt2,
};
