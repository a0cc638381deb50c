import { activationNames, norm, normShapes } from "./layers.js";
import { withoutBias } from "./layout.js";
import { configReader, sectionOrAll } from "./config.js";
import { pipeline, type State } from "./encoder.js";
import { meanOfTokens } from "./outputs.js";
import { patchEmbeddings, tokensOfImage } from "./patches.js";
import { preNormLayers } from "./prenorm.js";
import type { Block, Config, Model, ModelFamily } from "./types.js";

const siglipLayer = {
  norm1: "layer_norm1",
  qkv: ["q_proj", "k_proj", "v_proj"].map((name) => `self_attn.${name}`),
  out: "self_attn.out_proj",
  norm2: "layer_norm2",
  up: "mlp.fc1",
  down: "mlp.fc2",
};

const finalNorm = "post_layernorm";

function buildSiglip(json: Config): Model {
  // transformers writes only what is other than its defaults.
  const settings = { num_attention_heads: 12, ...sectionOrAll(json, "vision_config") };
  const { size, positive, only, heads: headsOf } = configReader(settings, "siglip");
  const image = {
    size: size("image_size", 1, 1e6, 224),
    patch: size("patch_size", 1, 1e6, 16),
    channels: size("num_channels", 1, 1000, 3),
    hasNoClassToken: true,
  } as const;
  const width = size("hidden_size", 1, 1e6, 768);
  const heads = headsOf("num_attention_heads", width);
  const epsilon = positive("layer_norm_eps", 1e-6);
  const tokens = tokensOfImage(image);
  const final: Block<State> = {
    id: finalNorm,
    shapes: new Map(normShapes(finalNorm, width)),
    run: (w, state) => ({
      ...state,
      x: meanOfTokens({ ...state, x: norm(w, finalNorm, state.x, epsilon) }),
    }),
  };
  return pipeline<State>({
    blocks: [
      patchEmbeddings(image, width, {
        projection: "embeddings.patch_embedding",
        bias: true,
        positions: "embeddings.position_embedding.weight",
        positionShape: [tokens, width],
      }),
      ...preNormLayers("encoder.layers", size("num_hidden_layers", 1, 1000, 12), {
        width,
        inner: size("intermediate_size", 1, 1e6, 3072),
        heads,
        epsilon,
        activation: only("hidden_act", "gelu_pytorch_tanh", ...activationNames),
        names: siglipLayer,
      }),
      final,
    ],
    tables: [],
    width,
    heads,
    vocabulary: tokens,
    maxLength: tokens,
    padId: 0,
    image,
    lookups: () => [],
    start: (initial) => ({ ...initial, bias: initial.batch.segments.map(withoutBias) }),
  });
}

/**
 * SigLIP (Zhai et al. 2023) as transformers' `SiglipForImageClassification`: heads `classifier.*` on the mean of the
 * vision tower's tokens. The text tower and the attention that pools for it are no part of it.
 */
export const siglip: ModelFamily = {
  types: { siglip: { title: "SigLIP", className: "Siglip" } },
  outputLayers: ["pool"],
  head: { weight: "classifier.weight", bias: "classifier.bias" },
  backbone: "vision_model",
  canonical: (name) => name.replace(/^vision_model\./, ""),
  build: buildSiglip,
};
