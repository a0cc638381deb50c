import type { Tensor2D } from "@tensorflow/tfjs-core";
import { UserError } from "../errors.js";
import { activationNames } from "./activations.js";
import { causalBias } from "./attention.js";
import { readConfig } from "./config.js";
import { dense, denseShapes, norm, normShapes } from "./dense.js";
import { pipeline, tokenOfRows, type State } from "./encoder.js";
import { lookup, plus, unitRows } from "./ops.js";
import { patchEmbeddings, tokensOf } from "./patches.js";
import { preNormLayer } from "./prenorm.js";
import type { Block, Config, Model, ModelFamily, TokenBatch } from "./types.js";

const names = {
  norm1: "layer_norm1",
  qkv: ["q_proj", "k_proj", "v_proj"].map((name) => `self_attn.${name}`),
  out: "self_attn.out_proj",
  norm2: "layer_norm2",
  up: "mlp.fc1",
  down: "mlp.fc2",
};

/** Settings of one tower: nested under its name in a whole CLIP's config, at the top in a tower's own. */
function tower(json: Config, key: "vision_config" | "text_config") {
  const own = (json[key] ?? json) as Config;
  if (typeof own !== "object" || own === null) throw new UserError(`config.json: "${key}" must be an object`);
  const reader = readConfig(own, "clip");
  const width = reader.size("hidden_size");
  const projected = readConfig(
    { projection_dim: json["projection_dim"] ?? own["projection_dim"] },
    "clip",
  ).size("projection_dim", 1, 1e6, 512);
  return {
    own,
    reader,
    width,
    projected,
    heads: reader.heads("num_attention_heads", width),
    layers: reader.size("num_hidden_layers", 1, 1000),
    inner: reader.size("intermediate_size"),
    epsilon: reader.positive("layer_norm_eps", 1e-5),
    activation: reader.only("hidden_act", "quick_gelu", ...activationNames),
  };
}

interface Projection {
  /** The norm's module, and the projection's. */
  readonly last: string;
  readonly projection: string;
  readonly width: number;
  readonly projected: number;
  readonly epsilon: number;
}

/**
 * The last norm on one token of every row, then the projection into the space that both towers share,
 * at length 1.
 */
const project = (
  { last, projection, width, projected, epsilon }: Projection,
  after?: (row: TokenBatch["rows"][number]) => number,
): Block<State> => ({
  id: projection,
  shapes: new Map([...normShapes(last, width), ...denseShapes(projection, projected, width, { bare: true })]),
  run: (w, state) => ({
    ...state,
    x: unitRows(
      dense(w, norm(w, last, tokenOfRows(state.x, state.batch, after), epsilon), projection, { bare: true }),
    ),
  }),
});

function build(json: Config): Model {
  const {
    reader: { size },
    width,
    projected,
    heads,
    layers,
    inner,
    epsilon,
    activation,
  } = tower(json, "vision_config");
  const image = {
    size: size("image_size"),
    patch: size("patch_size"),
    channels: size("num_channels", 1, 1000, 3),
  };
  const tokens = tokensOf(image);
  const before: Block<State> = {
    id: "vision_model.pre_layrnorm",
    shapes: new Map(normShapes("vision_model.pre_layrnorm", width)),
    run: (w, state) => ({ ...state, x: norm(w, "vision_model.pre_layrnorm", state.x, epsilon) }),
  };
  return pipeline<State>({
    blocks: [
      patchEmbeddings(image, width, {
        classToken: "vision_model.embeddings.class_embedding",
        classShape: [width],
        projection: "vision_model.embeddings.patch_embedding",
        bias: false,
        positions: "vision_model.embeddings.position_embedding.weight",
        positionShape: [tokens, width],
      }),
      before,
      ...Array.from({ length: layers }, (_, i) =>
        preNormLayer(`vision_model.encoder.layers.${i}`, { width, inner, heads, epsilon, activation, names }),
      ),
      project({
        last: "vision_model.post_layernorm",
        projection: "visual_projection",
        width,
        projected,
        epsilon,
      }),
    ],
    tables: [],
    width: projected,
    heads,
    vocabulary: tokens,
    maxLength: tokens,
    padId: 0,
    image,
    lookups: () => [],
    start: ({ segments }) => ({
      bias: segments.map(({ size: count, length }) => ({ size: count, length, bias: undefined })),
    }),
  });
}

/**
 * CLIP's text tower, which turns class prompts into the rows of a head: features at the end token,
 * [rows, projection], of length 1.
 */
export function clipText(json: Config): Model {
  const {
    own,
    reader: { size },
    width,
    projected,
    heads,
    layers,
    inner,
    epsilon,
    activation,
  } = tower(json, "text_config");
  const at = "text_model.embeddings";
  const [vocabulary, positions] = [size("vocab_size"), size("max_position_embeddings")];
  const endId = own["eos_token_id"];
  const lookups = ({ ids, positions: places }: TokenBatch) => [
    { name: `${at}.token_embedding.weight`, ids },
    { name: `${at}.position_embedding.weight`, ids: places },
  ];
  const embeddings: Block<State> = {
    id: at,
    shapes: new Map([
      [`${at}.token_embedding.weight`, [vocabulary, width]],
      [`${at}.position_embedding.weight`, [positions, width]],
    ]),
    run(w, state) {
      const [words, places] = lookups(state.batch).map(({ name, ids }) => lookup(w, name, ids)) as [
        Tensor2D,
        Tensor2D,
      ];
      return { ...state, x: plus(words, places) };
    },
  };
  // Older configs name a wrong end token (2): theirs is the one with the highest id.
  const end = ({ ids }: TokenBatch["rows"][number]) =>
    endId === 2 || endId == null ? ids.indexOf(Math.max(...ids)) : Math.max(0, ids.indexOf(endId as number));
  return pipeline<State>({
    blocks: [
      embeddings,
      ...Array.from({ length: layers }, (_, i) =>
        preNormLayer(`text_model.encoder.layers.${i}`, { width, inner, heads, epsilon, activation, names }),
      ),
      project(
        { last: "text_model.final_layer_norm", projection: "text_projection", width, projected, epsilon },
        end,
      ),
    ],
    tables: [`${at}.token_embedding.weight`, `${at}.position_embedding.weight`],
    width: projected,
    heads,
    vocabulary,
    maxLength: positions,
    padId: 0,
    lookups,
    start: (batch) => ({ bias: batch.segments.map((segment) => causalBias(segment)) }),
  });
}

/**
 * CLIP (Radford et al. 2021): its vision tower, whose features are image embeddings of length 1. A head
 * is `classification_head.weight`, [classes, projection], as the task-vector papers keep it, or made
 * from the text tower.
 */
export const clip: ModelFamily = {
  types: ["clip", "clip_vision_model"],
  outputLayers: ["pool"],
  head: { weight: "classification_head.weight" },
  // Experts are often saved as the tower alone.
  inherited: ["visual_projection.weight"],
  canonical: (name) => name,
  build,
};
