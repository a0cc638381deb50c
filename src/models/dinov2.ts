import { norm, normShapes, activationNames } from "./layers.js";
import { withoutBias } from "./layout.js";
import { configReader } from "./config.js";
import { pipeline, type State } from "./encoder.js";
import { concatenated } from "./ops.js";
import { headInputs, meanOfTokens } from "./outputs.js";
import { patchEmbeddings, tokensOfImage } from "./patches.js";
import { preNormLayers } from "./prenorm.js";
import type { Block, Config, Model, ModelFamily } from "./types.js";

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

const finalNorm = "layernorm";

function buildDino(json: Config): Model {
  const { size, positive, only, unsupported, heads: headsOf } = configReader(json, "dinov2");
  only("qkv_bias", true);
  only("use_swiglu_ffn", false);
  const patch = size("patch_size", 1, 1e6, 14);
  const image = {
    size: size("image_size", 1, 1e6, 224),
    patch,
    channels: size("num_channels", 1, 1000, 3),
    resizable: true,
  } as const;
  if (image.size % patch !== 0) throw unsupported("image_size", [`multiples of ${patch}`]);
  const width = size("hidden_size");
  const heads = headsOf("num_attention_heads", width);
  const epsilon = positive("layer_norm_eps", 1e-6);
  const tokens = tokensOfImage(image);
  const final: Block<State> = {
    id: finalNorm,
    shapes: new Map(normShapes(finalNorm, width)),
    run(w, state) {
      const x = norm(w, finalNorm, state.x, epsilon);
      return {
        ...state,
        x: concatenated([headInputs({ ...state, x }), meanOfTokens({ ...state, x }, 1)], 1),
      };
    },
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
      ...preNormLayers("encoder.layer", size("num_hidden_layers", 1, 1000), {
        width,
        inner: Math.trunc(width * positive("mlp_ratio", 4)),
        heads,
        epsilon,
        activation: only("hidden_act", "gelu", ...activationNames),
        names: dinoLayer,
      }),
      final,
    ],
    tables: [],
    width: 2 * width,
    heads,
    vocabulary: tokens,
    maxLength: 1e6,
    padId: 0,
    image,
    lookups: () => [],
    start: (initial) => ({ ...initial, bias: initial.batch.segments.map(withoutBias) }),
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
