import { configReader } from "./config.js";
import { endsOf, unembeddingName } from "./decoder.js";
import { fusedDecoder } from "./fused-decoder.js";
import type { FusedHeads } from "./fused-heads.js";
import { activationNames } from "./layers.js";
import { frequencies } from "./rope.js";
import type { BuildOptions, Config, Model, ModelFamily } from "./types.js";

/** Attention and feed-forward stand side by side, each behind its norm or both behind one; or one behind the other. */
function normsOf(json: Config, isNew: boolean, isParallel: boolean) {
  const { size } = configReader(json, "falcon");
  const attentionNorm = "input_layernorm";
  if (!isParallel) return { attentionNorm, forwardNorm: "post_attention_layernorm" };
  const count = size("num_ln_in_parallel_attn", 1, isNew ? 2 : 1, isNew ? 2 : 1);
  if (count === 2) return { attentionNorm: "ln_attn", forwardNorm: "ln_mlp" };
  return { attentionNorm, forwardNorm: attentionNorm };
}

/** Which heads of queries share a key and a value: those of a group, all of them, none. */
function headsOf(json: Config, isNew: boolean, width: number): FusedHeads {
  const reader = configReader(json, "falcon");
  const heads = reader.heads("num_attention_heads", width);
  const shared = reader.flag("multi_query", true) ? 1 : heads;
  const groups = isNew ? reader.size("num_kv_heads", 1, heads, heads) : shared;
  if (heads % groups)
    throw reader.unsupported("num_kv_heads", [`a number that ${heads} heads can be shared by`]);
  return { groups, queries: heads / groups, depth: width / heads };
}

const words = "word_embeddings.weight";

function buildFalcon(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const { size, positive, only, flag } = configReader(json, "falcon");
  only("alibi", false);
  const width = size("hidden_size");
  const isNew = flag("new_decoder_architecture", false);
  const isParallel = isNew || flag("parallel_attn", true);
  if (isNew) only("parallel_attn", true);
  const fused = headsOf(json, isNew, width);
  const positions = size("max_position_embeddings", 1, 1e8, 2048);
  const vocabulary = size("vocab_size");
  return fusedDecoder(outputLayer, {
    names: {
      words,
      unembedding: unembeddingName(flag("tie_word_embeddings", true), words),
      layers: "h",
      attention: "self_attention",
      ...normsOf(json, isNew, isParallel),
      last: "ln_f",
    },
    width,
    fused,
    layers: size("num_hidden_layers", 1, 1000),
    inner: size("ffn_hidden_size", 1, 1e6, 4 * width),
    vocabulary,
    positions,
    epsilon: positive("layer_norm_epsilon", 1e-5),
    activation: only("activation", "gelu", ...activationNames),
    options: { bare: !flag("bias", false) },
    isParallel,
    rotations: frequencies(json, fused.depth, positions),
    ends: endsOf(json, vocabulary, 11),
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
