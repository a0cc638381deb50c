import type { Tensor2D } from "@tensorflow/tfjs-core";
import { activationNames, activations } from "./activations.js";
import { causalBiases, rotary, type Angles } from "./attention.js";
import { readConfig } from "./config.js";
import { endsOf, lastBlock, sharedTexts } from "./decoder.js";
import { dense, denseShapes, rms } from "./dense.js";
import { pipeline, type State } from "./encoder.js";
import { attendBack } from "./kv-cache.js";
import { lookup, plus, times } from "./ops.js";
import { angles, frequencies } from "./rope.js";
import type { Block, BuildOptions, Config, Model, ModelFamily } from "./types.js";

interface LlamaState extends State {
  readonly angles: Angles;
}

function parse(json: Config) {
  const type = json["model_type"] as string;
  const { size, positive, only, flag, heads: headsOf } = readConfig(json, type);
  const width = size("hidden_size");
  const heads =
    json["head_dim"] == null ? headsOf("num_attention_heads", width) : size("num_attention_heads");
  const depth = json["head_dim"] == null ? width / heads : size("head_dim");
  const window =
    json["sliding_window"] == null || (type === "qwen2" && json["use_sliding_window"] !== true)
      ? Infinity
      : size("sliding_window");
  if (type === "qwen2" && window !== Infinity) only("use_sliding_window", false);
  return {
    width,
    heads,
    depth,
    window,
    keyHeads: size("num_key_value_heads", 1, heads, heads),
    layers: size("num_hidden_layers", 1, 1000),
    inner: size("intermediate_size"),
    vocabulary: size("vocab_size"),
    positions: size("max_position_embeddings", 1, 1e8),
    epsilon: positive("rms_norm_eps", 1e-6),
    activation: activations[only("hidden_act", "silu", ...activationNames)],
    tied: flag("tie_word_embeddings", false),
    // Qwen2's projections have biases but for the last.
    biased: {
      qkv: type === "qwen2" || flag("attention_bias", false),
      out: flag("attention_bias", false),
      mlp: flag("mlp_bias", false),
    },
  };
}

function layer(
  { width, heads, depth, keyHeads, inner, epsilon, activation, biased }: ReturnType<typeof parse>,
  index: number,
): Block<LlamaState> {
  const at = `layers.${index}`;
  const [q, k, v, o] = ["q", "k", "v", "o"].map((name) => `${at}.self_attn.${name}_proj`) as [
    string,
    string,
    string,
    string,
  ];
  const [gate, up, down] = ["gate", "up", "down"].map((name) => `${at}.mlp.${name}_proj`) as [
    string,
    string,
    string,
  ];
  const [before, between] = [`${at}.input_layernorm`, `${at}.post_attention_layernorm`];
  const [qkvOptions, outOptions, mlpOptions] = [biased.qkv, biased.out, biased.mlp].map((has) => ({
    bare: !has,
  })) as [{ bare: boolean }, { bare: boolean }, { bare: boolean }];
  return {
    id: at,
    shapes: new Map<string, readonly number[]>([
      [`${before}.weight`, [width]],
      ...denseShapes(q, heads * depth, width, qkvOptions),
      ...denseShapes(k, keyHeads * depth, width, qkvOptions),
      ...denseShapes(v, keyHeads * depth, width, qkvOptions),
      ...denseShapes(o, width, heads * depth, outOptions),
      [`${between}.weight`, [width]],
      ...denseShapes(gate, inner, width, mlpOptions),
      ...denseShapes(up, inner, width, mlpOptions),
      ...denseShapes(down, width, inner, mlpOptions),
    ]),
    run(w, state) {
      const x = state.x as Tensor2D;
      const normal = rms(w, before, x, epsilon);
      const query = rotary(dense(w, normal, q, qkvOptions), heads, state.angles);
      const key = rotary(dense(w, normal, k, qkvOptions), keyHeads, state.angles);
      const seen = attendBack(at, [query, key, dense(w, normal, v, qkvOptions)], state, {
        heads,
        scale: 1 / Math.sqrt(depth),
      });
      const middle = plus(x, dense(w, seen, o, outOptions));
      const again = rms(w, between, middle, epsilon);
      return {
        ...state,
        x: plus(
          middle,
          dense(
            w,
            times(activation(dense(w, again, gate, mlpOptions)), dense(w, again, up, mlpOptions)),
            down,
            mlpOptions,
          ),
        ),
      };
    },
  };
}

const table = "embed_tokens.weight";

function build(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const config = parse(json);
  const { width, layers, vocabulary, positions, tied, window, depth, heads, epsilon } = config;
  const turns = frequencies(json, depth, positions);
  const embeddings: Block<LlamaState> = {
    id: "embeddings",
    shapes: new Map([[table, [vocabulary, width]]]),
    run: (w, state) => ({ ...state, x: lookup(w, table, state.batch.ids) }),
  };
  const final = lastBlock<LlamaState>(outputLayer, {
    id: "norm",
    shapes: new Map([["norm.weight", [width]]]),
    normalise: (w, x) => rms(w, "norm", x, epsilon),
    unembedding: tied ? table : "lm_head.weight",
    size: [vocabulary, width],
  });
  return pipeline<LlamaState>({
    blocks: [embeddings, ...Array.from({ length: layers }, (_, i) => layer(config, i)), final],
    // A table that the output layer needs whole is no table.
    tables: outputLayer === "score" && tied ? [] : [table],
    width,
    heads,
    vocabulary,
    maxLength: Math.min(positions, 1e6),
    padId: 0,
    scores: outputLayer === "score" ? "decoder" : undefined,
    expand: sharedTexts,
    lookups: ({ ids }) => [{ name: table, ids }],
    generates: outputLayer === "score" ? { ends: endsOf(json, 2), window } : undefined,
    start: (batch) => ({ bias: causalBiases(batch, window), angles: angles(batch.positions, turns) }),
  });
}

/**
 * Llama 2 and 3 (Touvron et al. 2023), Mistral, Qwen2; as a language model, or with a head on the last
 * token (`score`).
 */
export const llama: ModelFamily = {
  types: ["llama", "mistral", "qwen2"],
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  canonical: (name) => name.replace(/^model\./, ""),
  build,
};
