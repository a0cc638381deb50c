import { activations, isActivationName } from "./layers.js";
import { configReader } from "./config.js";
import type { BuildOptions, Config } from "./types.js";

/** The form of the feed-forward layers, such as "relu" or "gated-gelu". */
function feedForwardForm(json: Config) {
  const form = json["feed_forward_proj"] ?? "relu";
  if (typeof form === "string") {
    // T5 v1.1 calls GELU by tanh so.
    const name = form === "gated-gelu" ? "gelu_new" : form.replace(/^gated-/, "");
    if (isActivationName(name)) return { isGated: form.startsWith("gated-"), activation: activations[name] };
  }
  throw configReader(json, "t5").unsupported("feed_forward_proj", ["relu", "gated-gelu"]);
}

export function parseT5(json: Config, has: BuildOptions["has"]) {
  const { size, positive, flag } = configReader(json, "t5");
  const layers = size("num_layers", 1, 1000);
  const isTied = flag("tie_word_embeddings", true);
  return {
    width: size("d_model"),
    depth: size("d_kv"),
    heads: size("num_heads"),
    inner: size("d_ff"),
    layers,
    decoderLayers: size("num_decoder_layers", 1, 1000, layers),
    vocabulary: size("vocab_size"),
    buckets: size("relative_attention_num_buckets", 4, 1e4, 32),
    distance: size("relative_attention_max_distance", 2, 1e6, 128),
    epsilon: positive("layer_norm_epsilon", 1e-6),
    padId: size("pad_token_id", 0, 1e6, 0),
    start: size("decoder_start_token_id", 0, 1e6, 0),
    ...feedForwardForm(json),
    // Whether the output layer is the embedding: transformers 5 writes that it is, whatever the file holds.
    isTied: has ? !has("lm_head.weight") : isTied,
    scales: flag("scale_decoder_outputs", isTied),
  };
}
export type T5Config = ReturnType<typeof parseT5>;
