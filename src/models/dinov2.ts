import { configReader } from "./config.js";
import { imageModel, imageShape, normedFeatures } from "./image-model.js";
import { activationNames } from "./layers.js";
import { concatenated } from "./ops.js";
import { headInputs, meanOfTokens } from "./outputs.js";
import type { Config, Model, ModelFamily } from "./types.js";
import { vitEmbeddings } from "./vit.js";

const dinoLayer = {
  norm1: "norm1",
  qkv: ["query", "key", "value"].map((name) => `attention.attention.${name}`),
  out: "attention.output.dense",
  scale1: "layer_scale1.lambda1",
  norm2: "norm2",
  up: "mlp.fc1",
  down: "mlp.fc2",
  scale2: "layer_scale2.lambda1",
};

function buildDino(json: Config): Model {
  const reader = configReader(json, "dinov2");
  const { size, positive, only, unsupported, heads } = reader;
  only("qkv_bias", true);
  only("use_swiglu_ffn", false);
  const image = { ...imageShape(reader, { size: 224, patch: 14 }), resizable: true };
  if (image.size % image.patch !== 0) throw unsupported("image_size", [`multiples of ${image.patch}`]);
  const width = size("hidden_size");
  const form = {
    width,
    inner: Math.trunc(width * positive("mlp_ratio", 4)),
    heads: heads("num_attention_heads", width),
    epsilon: positive("layer_norm_eps", 1e-6),
    activation: only("hidden_act", "gelu", ...activationNames),
    names: dinoLayer,
  };
  return imageModel({
    image,
    embeddings: vitEmbeddings(width),
    layers: { prefix: "encoder.layer", count: size("num_hidden_layers", 1, 1000), form },
    last: normedFeatures("layernorm", form, (state) =>
      concatenated([headInputs(state), meanOfTokens(state, 1)], 1),
    ),
    width: 2 * width,
  });
}

/**
 * DINOv2 (Oquab et al. 2023) as transformers' `Dinov2ForImageClassification`: heads `classifier.*` on the class token
 * beside the mean of the patches. Images may be of another size than the embeddings of positions are for.
 */
export const dinov2: ModelFamily = {
  types: { dinov2: { title: "DINOv2", className: "Dinov2" } },
  outputLayers: ["pool"],
  head: { weight: "classifier.weight", bias: "classifier.bias" },
  backbone: "dinov2",
  canonical: (name) => name.replace(/^dinov2\./, ""),
  build: buildDino,
};
