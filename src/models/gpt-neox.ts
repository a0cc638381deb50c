import { configReader, sectionOf } from "./config.js";
import { causalModel, endsOf } from "./decoder.js";
import type { State } from "./encoder.js";
import { apart } from "./fused-heads.js";
import { attendBack } from "./kv-cache.js";
import {
  activationNames,
  activations,
  dense,
  denseShapes,
  lookUpRows,
  norm,
  normShapes,
  type NamedShape,
} from "./layers.js";
import { causalBiases } from "./layout.js";
import { plus } from "./ops.js";
import { angles, frequencies, rotary, type Angles } from "./rope.js";
import type { Block, BuildOptions, Config, Model, ModelFamily } from "./types.js";

interface NeoxState extends State {
  readonly angles: Angles;
}

function parseNeox(json: Config) {
  const { size, positive, only, flag, heads: headsOf } = configReader(json, "gpt_neox");
  const width = size("hidden_size");
  const heads = headsOf("num_attention_heads", width);
  const positions = size("max_position_embeddings");
  only("attention_bias", true);
  const given = sectionOf(json, "rope_parameters");
  // Of each head a part turns.
  const part = configReader({ ...json, ...given }, "gpt_neox").positive(
    "partial_rotary_factor",
    positive("rotary_pct", 0.25),
  );
  const theta = json["rope_theta"] ?? json["rotary_emb_base"] ?? 10_000;
  return {
    width,
    heads,
    positions,
    layers: size("num_hidden_layers", 1, 1000),
    inner: size("intermediate_size"),
    vocabulary: size("vocab_size"),
    epsilon: positive("layer_norm_eps", 1e-5),
    activation: only("hidden_act", "gelu", ...activationNames),
    isParallel: flag("use_parallel_residual", true),
    isTied: flag("tie_word_embeddings", false),
    rotations: frequencies({ ...json, rope_theta: theta, rope_parameters: given }, width / heads, positions, {
      part,
    }),
  };
}
type NeoxConfig = ReturnType<typeof parseNeox>;

/** A layer whose attention and feed-forward stand side by side on the same input, or one behind the other. */
function neoxLayer(config: NeoxConfig, index: number): Block<NeoxState> {
  const { width, heads, inner, epsilon, activation, isParallel } = config;
  const layer = `layers.${index}`;
  const module = (name: string) => `${layer}.${name}`;
  const [norm1, norm2] = [module("input_layernorm"), module("post_attention_layernorm")];
  const [qkv, out] = [module("attention.query_key_value"), module("attention.dense")];
  const [up, down] = [module("mlp.dense_h_to_4h"), module("mlp.dense_4h_to_h")];
  const scale = 1 / Math.sqrt(width / heads);
  return {
    id: layer,
    shapes: new Map<string, readonly number[]>([
      ...normShapes(norm1, width),
      ...denseShapes(qkv, 3 * width, width),
      ...denseShapes(out, width, width),
      ...normShapes(norm2, width),
      ...denseShapes(up, inner, width),
      ...denseShapes(down, width, inner),
    ] satisfies NamedShape[]),
    run(w, state) {
      const projected = dense(w, norm(w, norm1, state.x, epsilon), qkv);
      const [q, k, v] = apart(projected, { groups: heads, queries: 1, depth: width / heads });
      const turned = [rotary(q, heads, state.angles), rotary(k, heads, state.angles)] as const;
      const attended = attendBack(layer, [...turned, v], state, { heads, scale });
      const middle = plus(state.x, dense(w, attended, out));
      const entered = norm(w, norm2, isParallel ? state.x : middle, epsilon);
      return { ...state, x: plus(middle, dense(w, activations[activation](dense(w, entered, up)), down)) };
    },
  };
}

const words = "embed_in.weight";
const finalNorm = "final_layer_norm";

function buildNeox(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const config = parseNeox(json);
  const { width, heads, layers, vocabulary, epsilon } = config;
  const embeddings: Block<NeoxState> = {
    id: "embeddings",
    shapes: new Map([[words, [vocabulary, width]]]),
    run: (w, state) => ({ ...state, x: lookUpRows(w, { name: words, ids: state.batch.ids }) }),
  };
  return causalModel<NeoxState>(outputLayer, {
    blocks: [embeddings, ...Array.from({ length: layers }, (_, i) => neoxLayer(config, i))],
    last: {
      id: finalNorm,
      shapes: new Map(normShapes(finalNorm, width)),
      normalise: (w, x) => norm(w, finalNorm, x, epsilon),
      unembedding: config.isTied ? words : "embed_out.weight",
    },
    tables: [words],
    width,
    heads,
    vocabulary,
    maxLength: config.positions,
    padId: 0,
    lookups: ({ ids }) => [{ name: words, ids }],
    generates: { ends: endsOf(json, vocabulary, 2) },
    start: (initial) => ({
      ...initial,
      bias: causalBiases(initial.batch),
      angles: angles(initial.batch.positions, config.rotations),
    }),
  });
}

/** GPT-NeoX and Pythia (Black et al. 2022; Biderman et al. 2023); as a language model, or with a head (`score`). */
export const gptNeox: ModelFamily = {
  types: { gpt_neox: { title: "GPT-NeoX", className: "GPTNeoX" } },
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  backbone: "gpt_neox",
  canonical: (name) => name.replace(/^gpt_neox\./, ""),
  build: buildNeox,
};
