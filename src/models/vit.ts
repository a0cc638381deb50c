import { configReader } from "./config.js";
import { imageModel, imageShape, type ImageModel } from "./image-model.js";
import { activationNames, norm, normShapes } from "./layers.js";
import { headInputs } from "./outputs.js";
import type { Config, Model, ModelFamily } from "./types.js";

const vitLayer = {
  norm1: "layernorm_before",
  qkv: ["query", "key", "value"].map((name) => `attention.attention.${name}`),
  out: "attention.output.dense",
  norm2: "layernorm_after",
  up: "intermediate.dense",
  down: "output.dense",
};

/** ViT's embeddings, and DINOv2's. */
export const vitEmbeddings = (width: number): ImageModel["embeddings"] => ({
  classToken: ["embeddings.cls_token", [1, 1, width]],
  projection: "embeddings.patch_embeddings.projection",
  bias: true,
  positions: "embeddings.position_embeddings",
  hasBatchAxis: true,
});

const finalNorm = "layernorm";

function buildVit(json: Config): Model {
  const reader = configReader(json, "vit");
  const { size, positive, only, heads } = reader;
  only("qkv_bias", true);
  const image = imageShape(reader);
  only("patch_size", ...[image.patch].filter(() => image.size % image.patch === 0), image.size);
  const width = size("hidden_size");
  const form = {
    width,
    inner: size("intermediate_size"),
    heads: heads("num_attention_heads", width),
    epsilon: positive("layer_norm_eps", 1e-12),
    activation: only("hidden_act", "gelu", ...activationNames),
    names: vitLayer,
  };
  return imageModel({
    image,
    embeddings: vitEmbeddings(width),
    layers: { prefix: "encoder.layer", count: size("num_hidden_layers", 1, 1000), form },
    last: {
      id: finalNorm,
      shapes: new Map(normShapes(finalNorm, width)),
      run: (w, state) => ({ ...state, x: norm(w, finalNorm, headInputs(state), form.epsilon) }),
    },
  });
}

/**
 * ViT (Dosovitskiy et al. 2021) as transformers' `ViTForImageClassification`; heads `classifier.*` on
 * the class token.
 */
export const vit: ModelFamily = {
  types: { vit: { title: "ViT", className: "ViT" } },
  outputLayers: ["pool"],
  head: { weight: "classifier.weight", bias: "classifier.bias" },
  backbone: "vit",
  canonical: (name) => name.replace(/^vit\./, ""),
  build: buildVit,
};
