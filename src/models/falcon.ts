import type { Tensor2D } from "@tensorflow/tfjs-core";
import { configReader } from "./config.js";
import { causalModel, endsOf, unembeddingName } from "./decoder.js";
import type { State } from "./encoder.js";
import { apart, type FusedHeads } from "./fused-heads.js";
import { attendBack } from "./kv-cache.js";
import { activationNames, activations, dense, denseShapes, lookUpRows, norm, normShapes } from "./layers.js";
import { causalBiases } from "./layout.js";
import { plus } from "./ops.js";
import { angles, frequencies, rotary, type Angles } from "./rope.js";
import type { Block, BuildOptions, Config, Model, ModelFamily } from "./types.js";

interface FalconState extends State {
  readonly angles: Angles;
}

/** What a layer's norms are called, by where they stand: one may be in front of both. */
interface FalconNorms {
  readonly attention: string;
  readonly forward: string;
}

/** Attention and feed-forward stand side by side, each behind its norm or both behind one; or one behind the other. */
function normsOf(json: Config, isNew: boolean, isParallel: boolean): FalconNorms {
  const { size } = configReader(json, "falcon");
  if (!isParallel) return { attention: "input_layernorm", forward: "post_attention_layernorm" };
  const count = size("num_ln_in_parallel_attn", 1, isNew ? 2 : 1, isNew ? 2 : 1);
  if (count === 2) return { attention: "ln_attn", forward: "ln_mlp" };
  return { attention: "input_layernorm", forward: "input_layernorm" };
}

/** Which heads of queries share a key and a value: those of a group, all of them, none. */
function headsOf(json: Config, isNew: boolean, width: number): FusedHeads & { readonly heads: number } {
  const reader = configReader(json, "falcon");
  const heads = reader.heads("num_attention_heads", width);
  const depth = width / heads;
  const shared = reader.flag("multi_query", true) ? 1 : heads;
  const groups = isNew ? reader.size("num_kv_heads", 1, heads, heads) : shared;
  if (heads % groups)
    throw reader.unsupported("num_kv_heads", [`a number that ${heads} heads can be shared by`]);
  return { heads, groups, queries: heads / groups, depth };
}

function parseFalcon(json: Config) {
  const { size, positive, only, flag } = configReader(json, "falcon");
  only("alibi", false);
  only("partial_rotary_factor", 1);
  const width = size("hidden_size");
  const isNew = flag("new_decoder_architecture", false);
  const isParallel = isNew || flag("parallel_attn", true);
  if (isNew) only("parallel_attn", true);
  const fused = headsOf(json, isNew, width);
  const positions = size("max_position_embeddings", 1, 1e8, 2048);
  return {
    width,
    fused,
    positions,
    isParallel,
    norms: normsOf(json, isNew, isParallel),
    options: { bare: !flag("bias", false) },
    layers: size("num_hidden_layers", 1, 1000),
    inner: size("ffn_hidden_size", 1, 1e6, 4 * width),
    vocabulary: size("vocab_size"),
    epsilon: positive("layer_norm_epsilon", 1e-5),
    activation: only("activation", "gelu", ...activationNames),
    isTied: flag("tie_word_embeddings", true),
    rotations: frequencies(json, fused.depth, positions),
  };
}
type FalconConfig = ReturnType<typeof parseFalcon>;

function falconLayer(config: FalconConfig, index: number): Block<FalconState> {
  const { width, fused, inner, epsilon, activation, options, isParallel, norms } = config;
  const { heads, groups, queries, depth } = fused;
  const layer = `h.${index}`;
  const module = (name: string) => `${layer}.${name}`;
  const [norm1, norm2] = [module(norms.attention), module(norms.forward)];
  const [qkv, out] = [module("self_attention.query_key_value"), module("self_attention.dense")];
  const [up, down] = [module("mlp.dense_h_to_4h"), module("mlp.dense_4h_to_h")];
  const scale = 1 / Math.sqrt(depth);
  return {
    id: layer,
    shapes: new Map([
      ...normShapes(norm1, width),
      ...normShapes(norm2, width),
      ...denseShapes(qkv, groups * (queries + 2) * depth, width, options),
      ...denseShapes(out, width, width, options),
      ...denseShapes(up, inner, width, options),
      ...denseShapes(down, width, inner, options),
    ]),
    run(w, state) {
      const { x } = state;
      const entered = norm(w, norm1, x, epsilon);
      const [q, k, v] = apart(dense(w, entered, qkv, options), fused);
      const turned = [rotary(q, heads, state.angles), rotary(k, groups, state.angles)] as const;
      const attended = dense(w, attendBack(layer, [...turned, v], state, { heads, scale }), out, options);
      const middle = plus(x, attended);
      const before = (): Tensor2D => {
        if (norm1 === norm2) return entered;
        return norm(w, norm2, isParallel ? x : middle, epsilon);
      };
      const wide = activations[activation](dense(w, before(), up, options));
      return { ...state, x: plus(middle, dense(w, wide, down, options)) };
    },
  };
}

const words = "word_embeddings.weight";
const finalNorm = "ln_f";

function buildFalcon(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const config = parseFalcon(json);
  const { width, fused, layers, vocabulary, epsilon } = config;
  const embeddings: Block<FalconState> = {
    id: "embeddings",
    shapes: new Map([[words, [vocabulary, width]]]),
    run: (w, state) => ({ ...state, x: lookUpRows(w, { name: words, ids: state.batch.ids }) }),
  };
  return causalModel<FalconState>(outputLayer, {
    blocks: [embeddings, ...Array.from({ length: layers }, (_, i) => falconLayer(config, i))],
    last: {
      id: finalNorm,
      shapes: new Map(normShapes(finalNorm, width)),
      normalise: (w, x) => norm(w, finalNorm, x, epsilon),
      unembedding: unembeddingName(config.isTied, words),
    },
    tables: [words],
    width,
    heads: fused.heads,
    vocabulary,
    maxLength: Math.min(config.positions, 1e6),
    padId: 0,
    lookups: ({ ids }) => [{ name: words, ids }],
    generates: { ends: endsOf(json, vocabulary, 11) },
    start: (initial) => ({
      ...initial,
      bias: causalBiases(initial.batch),
      angles: angles(initial.batch.positions, config.rotations),
    }),
  });
}

/**
 * Falcon (Almazrouei et al. 2023): 7B's form, 40B's and 11B's; as a language model, or with a head (`score`). Falcon 3
 * is a Llama.
 */
export const falcon: ModelFamily = {
  types: { falcon: { title: "Falcon", className: "Falcon" } },
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  backbone: "transformer",
  canonical: (name) => name.replace(/^transformer\./, ""),
  build: buildFalcon,
};
