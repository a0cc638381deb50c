import { activationNames, norm, normShapes } from "./layers.js";
import { withoutBias } from "./layout.js";
import { configReader } from "./config.js";
import { pipeline, type State } from "./encoder.js";
import { headInputs } from "./outputs.js";
import { patchEmbeddings, tokensOfImage } from "./patches.js";
import { preNormLayers } from "./prenorm.js";
import type { Block, Config, Model, ModelFamily } from "./types.js";

const vitLayer = {
  norm1: "layernorm_before",
  qkv: ["query", "key", "value"].map((name) => `attention.attention.${name}`),
  out: "attention.output.dense",
  norm2: "layernorm_after",
  up: "intermediate.dense",
  down: "output.dense",
};

function buildVit(json: Config): Model {
  const { size, positive, only, heads: headsOf } = configReader(json, "vit");
  only("qkv_bias", true);
  const image = {
    size: size("image_size"),
    patch: size("patch_size"),
    channels: size("num_channels", 1, 1000, 3),
  };
  only("patch_size", ...[image.patch].filter(() => image.size % image.patch === 0), image.size);
  const [width, inner, layers] = [
    size("hidden_size"),
    size("intermediate_size"),
    size("num_hidden_layers", 1, 1000),
  ];
  const heads = headsOf("num_attention_heads", width);
  const epsilon = positive("layer_norm_eps", 1e-12);
  const activation = only("hidden_act", "gelu", ...activationNames);
  const tokens = tokensOfImage(image);
  const final: Block<State> = {
    id: "layernorm",
    shapes: new Map(normShapes("layernorm", width)),
    run: (w, state) => ({ ...state, x: norm(w, "layernorm", headInputs(state), epsilon) }),
  };
  return pipeline<State>({
    blocks: [
      patchEmbeddings(image, width, {
        classToken: ["embeddings.cls_token", [1, 1, width]],
        projection: "embeddings.patch_embeddings.projection",
        bias: true,
        positions: "embeddings.position_embeddings",
        positionShape: [1, tokens, width],
      }),
      ...preNormLayers("encoder.layer", layers, {
        width,
        inner,
        heads,
        epsilon,
        activation,
        names: vitLayer,
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
