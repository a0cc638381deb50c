import { activationNames, dense, denseShapes, norm, normShapes } from "./layers.js";
import { imageModel, imageShape } from "./image-model.js";
import { causalBias } from "./layout.js";
import { configReader, sectionOrAll } from "./config.js";
import { positionedTokens, pipeline, type State } from "./encoder.js";
import { headInputs } from "./outputs.js";
import { unitRows } from "./ops.js";
import { preNormLayers } from "./prenorm.js";
import type { Block, Config, Model, ModelFamily, TokenRow } from "./types.js";

/** A layer of either tower, and of SigLIP's. */
export const clipLayer = {
  norm1: "layer_norm1",
  qkv: ["q_proj", "k_proj", "v_proj"].map((name) => `self_attn.${name}`),
  out: "self_attn.out_proj",
  norm2: "layer_norm2",
  up: "mlp.fc1",
  down: "mlp.fc2",
};

/** Settings of one tower: nested under its name in a whole CLIP's config, at the top in a tower's own. */
function parseTower(json: Config, key: "vision_config" | "text_config") {
  const settings = sectionOrAll(json, key);
  const reader = configReader(settings, "clip");
  const width = reader.size("hidden_size");
  // The space that both towers share is the whole CLIP's to say.
  const projectionReader = configReader(
    { projection_dim: json["projection_dim"] ?? settings["projection_dim"] },
    "clip",
  );
  return {
    settings,
    size: reader.size,
    projected: projectionReader.size("projection_dim", 1, 1e6, 512),
    layers: reader.size("num_hidden_layers", 1, 1000),
    form: {
      width,
      heads: reader.heads("num_attention_heads", width),
      inner: reader.size("intermediate_size"),
      epsilon: reader.positive("layer_norm_eps", 1e-5),
      activation: reader.only("hidden_act", "quick_gelu", ...activationNames),
      names: clipLayer,
    },
  };
}
type ClipTower = ReturnType<typeof parseTower>;

interface Projection {
  /** The norm's module, and the projection's. */
  readonly last: string;
  readonly projection: string;
  /** Which token of a row, counted from its first (default: that). */
  after?(row: TokenRow): number;
}

/**
 * The last norm on one token of every row, then the projection into the space that both towers share,
 * at length 1.
 */
const projectionBlock = (
  { projected, form: { width, epsilon } }: ClipTower,
  { last, projection, after }: Projection,
): Block<State> => ({
  id: projection,
  shapes: new Map([...normShapes(last, width), ...denseShapes(projection, projected, width, { bare: true })]),
  run(w, state) {
    const token = norm(w, last, headInputs(state, after), epsilon);
    return { ...state, x: unitRows(dense(w, token, projection, { bare: true })) };
  },
});

const preNorm = "vision_model.pre_layrnorm";

function buildClip(json: Config): Model {
  const tower = parseTower(json, "vision_config");
  const { size, projected, layers, form } = tower;
  const { width, epsilon } = form;
  return imageModel({
    image: imageShape({ size }),
    embeddings: {
      classToken: ["vision_model.embeddings.class_embedding", [width]],
      projection: "vision_model.embeddings.patch_embedding",
      bias: false,
      positions: "vision_model.embeddings.position_embedding.weight",
    },
    before: [
      {
        id: preNorm,
        shapes: new Map(normShapes(preNorm, width)),
        run: (w, state) => ({ ...state, x: norm(w, preNorm, state.x, epsilon) }),
      },
    ],
    layers: { prefix: "vision_model.encoder.layers", count: layers, form },
    last: projectionBlock(tower, { last: "vision_model.post_layernorm", projection: "visual_projection" }),
    width: projected,
  });
}

/** The end token of a row. Older configs name a wrong one (2): theirs is the one with the highest id. */
function endToken({ ids }: TokenRow, endId: unknown): number {
  if (endId === 2 || endId == null) return ids.indexOf(Math.max(...ids));
  return Math.max(
    0,
    ids.findIndex((id) => id === endId),
  );
}

/**
 * CLIP's text tower, which turns class prompts into the rows of a head: features at the end token,
 * [rows, projection], of length 1.
 */
export function clipText(json: Config): Model {
  const tower = parseTower(json, "text_config");
  const { settings, size, projected, layers, form } = tower;
  const { width, heads } = form;
  const id = "text_model.embeddings";
  const words = { name: `${id}.token_embedding.weight`, size: size("vocab_size") };
  const positions = { name: `${id}.position_embedding.weight`, size: size("max_position_embeddings") };
  const embeddings = positionedTokens({ id, words, positions, width });
  return pipeline<State>({
    blocks: [
      embeddings.block,
      ...preNormLayers("text_model.encoder.layers", layers, form),
      projectionBlock(tower, {
        last: "text_model.final_layer_norm",
        projection: "text_projection",
        after: (row) => endToken(row, settings["eos_token_id"]),
      }),
    ],
    tables: [words.name, positions.name],
    width: projected,
    heads,
    vocabulary: words.size,
    maxLength: positions.size,
    padId: 0,
    lookups: embeddings.lookups,
    start: (initial) => ({
      ...initial,
      bias: initial.batch.segments.map((segment) => causalBias(segment)),
    }),
  });
}

/**
 * CLIP (Radford et al. 2021): its vision tower, whose features are image embeddings of length 1. A head
 * is `classification_head.weight`, [classes, projection], as the task-vector papers keep it, or made
 * from the text tower.
 */
export const clip: ModelFamily = {
  types: { clip: { title: "CLIP" }, clip_vision_model: { title: "CLIP's vision tower" } },
  outputLayers: ["pool"],
  head: { weight: "classification_head.weight" },
  // Experts are often saved as the tower alone.
  inherited: ["visual_projection.weight"],
  canonical: (name) => name,
  build: buildClip,
};
