import { activationNames, activations, dense, denseShapes, rms, lookUpRows } from "./layers.js";
import { causalBiases } from "./layout.js";
import { configReader } from "./config.js";
import { causalModel, endsOf, unembeddingName } from "./decoder.js";
import type { State } from "./encoder.js";
import { attendBack } from "./kv-cache.js";
import { plus, times } from "./ops.js";
import { angles, frequencies, rotary, type Angles } from "./rope.js";
import type { Block, BuildOptions, Config, Model, ModelFamily } from "./types.js";

interface LlamaState extends State {
  readonly angles: Angles;
}

const isAbsent = (json: Config, key: string): boolean => json[key] == null;

function headShape(json: Config, width: number) {
  const { size, heads: headsOf } = configReader(json, String(json["model_type"]));
  if (!isAbsent(json, "head_dim")) return { heads: size("num_attention_heads"), depth: size("head_dim") };
  const heads = headsOf("num_attention_heads", width);
  return { heads, depth: width / heads };
}

/** How far back a token sees. Qwen2's configs name a window even where none is used. */
function attentionWindow(json: Config): number {
  const type = String(json["model_type"]);
  const { size, unsupported } = configReader(json, type);
  if (isAbsent(json, "sliding_window")) return Infinity;
  if (type !== "qwen2") return size("sliding_window");
  if (json["use_sliding_window"] === true) throw unsupported("use_sliding_window", [false]);
  return Infinity;
}

function parseLlama(json: Config) {
  const type = String(json["model_type"]);
  const { size, positive, only, flag } = configReader(json, type);
  const width = size("hidden_size");
  const { heads, depth } = headShape(json, width);
  return {
    width,
    heads,
    depth,
    window: attentionWindow(json),
    keyHeads: size("num_key_value_heads", 1, heads, heads),
    layers: size("num_hidden_layers", 1, 1000),
    inner: size("intermediate_size"),
    vocabulary: size("vocab_size"),
    positions: size("max_position_embeddings", 1, 1e8),
    epsilon: positive("rms_norm_eps", 1e-6),
    activation: activations[only("hidden_act", "silu", ...activationNames)],
    isTied: flag("tie_word_embeddings", false),
    // Qwen2's projections have biases but for the last.
    qkvOptions: { bare: type !== "qwen2" && !flag("attention_bias", false) },
    outOptions: { bare: !flag("attention_bias", false) },
    mlpOptions: { bare: !flag("mlp_bias", false) },
  };
}
type LlamaConfig = ReturnType<typeof parseLlama>;

function llamaLayer(config: LlamaConfig, index: number): Block<LlamaState> {
  const { width, heads, depth, keyHeads, inner, epsilon, activation } = config;
  const { qkvOptions, outOptions, mlpOptions } = config;
  const layer = `layers.${index}`;
  const projection = (name: string) => `${layer}.self_attn.${name}_proj`;
  const [q, k, v, o] = [projection("q"), projection("k"), projection("v"), projection("o")];
  const [gate, up, down] = [`${layer}.mlp.gate_proj`, `${layer}.mlp.up_proj`, `${layer}.mlp.down_proj`];
  const [before, between] = [`${layer}.input_layernorm`, `${layer}.post_attention_layernorm`];
  return {
    id: layer,
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
      const normal = rms(w, before, state.x, epsilon);
      const query = rotary(dense(w, normal, q, qkvOptions), heads, state.angles);
      const key = rotary(dense(w, normal, k, qkvOptions), keyHeads, state.angles);
      const attended = attendBack(layer, [query, key, dense(w, normal, v, qkvOptions)], state, {
        heads,
        scale: 1 / Math.sqrt(depth),
      });
      const middle = plus(state.x, dense(w, attended, o, outOptions));
      const again = rms(w, between, middle, epsilon);
      const gated = times(activation(dense(w, again, gate, mlpOptions)), dense(w, again, up, mlpOptions));
      return { ...state, x: plus(middle, dense(w, gated, down, mlpOptions)) };
    },
  };
}

/** The embedding. */
const llamaWords = "embed_tokens.weight";

function buildLlama(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const config = parseLlama(json);
  const { width, layers, vocabulary, positions, isTied, window, depth, heads, epsilon } = config;
  const rotations = frequencies(json, depth, positions);
  const embeddings: Block<LlamaState> = {
    id: "embeddings",
    shapes: new Map([[llamaWords, [vocabulary, width]]]),
    run: (w, state) => ({ ...state, x: lookUpRows(w, { name: llamaWords, ids: state.batch.ids }) }),
  };
  return causalModel<LlamaState>(outputLayer, {
    blocks: [embeddings, ...Array.from({ length: layers }, (_, i) => llamaLayer(config, i))],
    last: {
      id: "norm",
      shapes: new Map([["norm.weight", [width]]]),
      normalise: (w, x) => rms(w, "norm", x, epsilon),
      unembedding: unembeddingName(isTied, llamaWords),
    },
    tables: [llamaWords],
    width,
    heads,
    vocabulary,
    maxLength: Math.min(positions, 1e6),
    padId: 0,
    lookups: ({ ids }) => [{ name: llamaWords, ids }],
    generates: { ends: endsOf(json, vocabulary, 2), window },
    start: (initial) => ({
      ...initial,
      bias: causalBiases(initial.batch, window),
      angles: angles(initial.batch.positions, rotations),
    }),
  });
}

/**
 * Llama 2 and 3 (Touvron et al. 2023), Mistral, Qwen2; as a language model, or with a head on the last
 * token (`score`).
 */
export const llama: ModelFamily = {
  types: {
    llama: { title: "Llama", className: "Llama" },
    mistral: { title: "Mistral", className: "Mistral" },
    qwen2: { title: "Qwen2", className: "Qwen2" },
  },
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  backbone: "model",
  // transformers' class for spans calls the backbone "transformer".
  canonical: (name) => name.replace(/^(model|transformer)\./, ""),
  build: buildLlama,
};
