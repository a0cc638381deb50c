import { clipLayer } from "./clip.js";
import { configReader, sectionOrAll } from "./config.js";
import { imageModel, imageShape, normedFeatures } from "./image-model.js";
import { activationNames } from "./layers.js";
import { meanOfTokens } from "./outputs.js";
import type { Config, Model, ModelFamily } from "./types.js";

function buildSiglip(json: Config): Model {
  // transformers writes only what is other than its defaults.
  const settings = { num_attention_heads: 12, ...sectionOrAll(json, "vision_config") };
  const reader = configReader(settings, "siglip");
  const { size, positive, only, heads } = reader;
  const width = size("hidden_size", 1, 1e6, 768);
  const form = {
    width,
    inner: size("intermediate_size", 1, 1e6, 3072),
    heads: heads("num_attention_heads", width),
    epsilon: positive("layer_norm_eps", 1e-6),
    activation: only("hidden_act", "gelu_pytorch_tanh", ...activationNames),
    names: clipLayer,
  };
  return imageModel({
    image: { ...imageShape(reader, { size: 224, patch: 16 }), hasNoClassToken: true },
    embeddings: {
      projection: "embeddings.patch_embedding",
      bias: true,
      positions: "embeddings.position_embedding.weight",
    },
    layers: { prefix: "encoder.layers", count: size("num_hidden_layers", 1, 1000, 12), form },
    last: normedFeatures("post_layernorm", form, (state) => meanOfTokens(state)),
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
