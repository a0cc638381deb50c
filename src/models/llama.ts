import { add, reshape, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { dense, denseShapes, lookUpRows, rms, weightVector, type NamedShape } from "./layers.js";
import { causalBiases } from "./layout.js";
import { causalModel, endsOf, unembeddingName } from "./decoder.js";
import type { State } from "./encoder.js";
import { attendBack, type SelfAttentionState } from "./kv-cache.js";
import { parseLlama, type LlamaConfig } from "./llama-config.js";
import { mixtureOfExperts } from "./mixture.js";
import { rmsNorm } from "./norms.js";
import { multiplied, plus, times } from "./ops.js";
import { angles, rotary, type Angles } from "./rope.js";
import type { Block, BuildOptions, Config, Model, ModelFamily, Weights } from "./types.js";

/** A way of seeing, of a batch. */
interface Side extends SelfAttentionState {
  readonly angles: Angles;
}

interface LlamaState extends State {
  readonly sides: readonly Side[];
}

/** A norm by its module. */
function normalised(w: Weights, module: string, x: Tensor2D, { epsilon, normOffset }: LlamaConfig): Tensor2D {
  if (normOffset === 0) return rms(w, module, x, epsilon);
  return rmsNorm(x, add<Tensor1D>(weightVector(w, `${module}.weight`), normOffset), epsilon);
}

/** Queries or keys [tokens, heads · depth], each head by itself. */
function normalisedHeads(w: Weights, module: string, x: Tensor2D, config: LlamaConfig): Tensor2D {
  const heads: Tensor2D = reshape(x, [-1, config.depth]);
  return reshape(normalised(w, module, heads, config), x.shape);
}

/** A layer's attention to its own rows. */
function selfAttention(config: LlamaConfig, layer: string, sight: number) {
  const { width, heads, depth, keyHeads, scale, qkNorm, qkvOptions, outOptions } = config;
  const module = (name: string) => `${layer}.self_attn.${name}`;
  const [q, k, v, o] = [module("q_proj"), module("k_proj"), module("v_proj"), module("o_proj")];
  const norms = { [q]: module("q_norm"), [k]: module("k_norm") };
  const shapes: NamedShape[] = [
    ...denseShapes(q, heads * depth, width, qkvOptions),
    ...denseShapes(k, keyHeads * depth, width, qkvOptions),
    ...denseShapes(v, keyHeads * depth, width, qkvOptions),
    ...denseShapes(o, width, heads * depth, outOptions),
    ...(qkNorm ? Object.values(norms).map((name): NamedShape => [`${name}.weight`, [depth]]) : []),
  ];
  /** Queries or keys, normalised head by head where the family does so. */
  const projected = (w: Weights, x: Tensor2D, projection: string): Tensor2D => {
    const made = dense(w, x, projection, qkvOptions);
    const norm = qkNorm ? norms[projection] : undefined;
    return norm === undefined ? made : normalisedHeads(w, norm, made, config);
  };
  const run = (w: Weights, x: Tensor2D, { sides, cache }: LlamaState): Tensor2D => {
    const side = at(sides, sight);
    const query = rotary(projected(w, x, q), heads, side.angles);
    const key = rotary(projected(w, x, k), keyHeads, side.angles);
    const options = { heads, scale };
    const attended = attendBack(layer, [query, key, dense(w, x, v, qkvOptions)], { ...side, cache }, options);
    return dense(w, attended, o, outOptions);
  };
  return { shapes, run };
}

/** A layer's gated feed-forward. */
function feedForward({ width, inner, activation, mlpOptions }: LlamaConfig, layer: string) {
  const [gate, up, down] = [`${layer}.mlp.gate_proj`, `${layer}.mlp.up_proj`, `${layer}.mlp.down_proj`];
  const shapes: NamedShape[] = [
    ...denseShapes(gate, inner, width, mlpOptions),
    ...denseShapes(up, inner, width, mlpOptions),
    ...denseShapes(down, width, inner, mlpOptions),
  ];
  const run = (w: Weights, x: Tensor2D): Tensor2D => {
    const gated = times(activation(dense(w, x, gate, mlpOptions)), dense(w, x, up, mlpOptions));
    return dense(w, gated, down, mlpOptions);
  };
  return { shapes, run };
}

/** Norms in front of attention and feed-forward; Gemma has one behind each too, and other names for them. */
function normNames(layer: string, { isSandwiched }: LlamaConfig) {
  const norm = (name: string) => `${layer}.${name}_layernorm`;
  const before = norm("input");
  if (!isSandwiched) return { before, between: norm("post_attention") };
  return {
    before,
    behindAttention: norm("post_attention"),
    between: norm("pre_feedforward"),
    behindForward: norm("post_feedforward"),
  };
}

function llamaLayer(config: LlamaConfig, index: number): Block<LlamaState> {
  const layer = `layers.${index}`;
  const attention = selfAttention(config, layer, at(config.sightOf, index));
  const mixture = config.mixtures[index];
  const forward = mixture ? mixtureOfExperts({ ...config, mixture }, layer) : feedForward(config, layer);
  const norms = normNames(layer, config);
  const { before, between, behindAttention, behindForward } = norms;
  const behind = (w: Weights, module: string | undefined, x: Tensor2D): Tensor2D =>
    module === undefined ? x : normalised(w, module, x, config);
  return {
    id: layer,
    shapes: new Map([
      ...Object.values(norms).map((name): NamedShape => [`${name}.weight`, [config.width]]),
      ...attention.shapes,
      ...forward.shapes,
    ]),
    run(w, state) {
      const attended = attention.run(w, normalised(w, before, state.x, config), state);
      const middle = plus(state.x, behind(w, behindAttention, attended));
      const made = forward.run(w, normalised(w, between, middle, config));
      return { ...state, x: plus(middle, behind(w, behindForward, made)) };
    },
  };
}

/** The embedding. */
const llamaWords = "embed_tokens.weight";

function buildLlama(json: Config, { outputLayer = "score" }: BuildOptions = {}): Model {
  const config = parseLlama(json);
  const { width, layers, vocabulary, positions, isTied, heads, embeddingScale, sights } = config;
  const embeddings: Block<LlamaState> = {
    id: "embeddings",
    shapes: new Map([[llamaWords, [vocabulary, width]]]),
    run(w, state) {
      const x = lookUpRows(w, { name: llamaWords, ids: state.batch.ids });
      return { ...state, x: embeddingScale === 1 ? x : multiplied(x, embeddingScale) };
    },
  };
  return causalModel<LlamaState>(outputLayer, {
    blocks: [embeddings, ...Array.from({ length: layers }, (_, i) => llamaLayer(config, i))],
    last: {
      id: "norm",
      shapes: new Map([["norm.weight", [width]]]),
      normalise: (w, x) => normalised(w, "norm", x, config),
      unembedding: unembeddingName(isTied, llamaWords),
    },
    tables: [llamaWords],
    width,
    heads,
    vocabulary,
    maxLength: Math.min(positions, 1e6),
    padId: 0,
    lookups: ({ ids }) => [{ name: llamaWords, ids }],
    generates: { ends: endsOf(json, vocabulary, config.end) },
    start(initial) {
      const { batch, cache } = initial;
      const sides = sights.map(({ window, rotations }): Side => ({
        bias: causalBiases(batch, window),
        keys: cache?.keys(window),
        angles: angles(batch.positions, rotations),
      }));
      return { ...initial, bias: at(sides, 0).bias, sides };
    },
  });
}

/** Mixtral's names of what others call so. */
const mixtralNames: Readonly<Record<string, string>> = { w1: "gate_proj", w2: "down_proj", w3: "up_proj" };
const inModernSpelling = (name: string): string =>
  name.replace(/\.block_sparse_moe\.(?:experts\.(\d+)\.(w[123])|gate)\./, (_, expert?: string, matrix = "") =>
    expert === undefined ? ".mlp.gate." : `.mlp.experts.${expert}.${mixtralNames[matrix] ?? matrix}.`,
  );

/**
 * Llama 2 and 3 (Touvron et al. 2023), Mistral, Qwen2, Qwen3, Gemma 3's text models, and the mixtures of experts
 * Mixtral and Qwen3 MoE; as a language model, or with a head on the last token (`score`).
 */
export const llama: ModelFamily = {
  types: {
    llama: { title: "Llama", className: "Llama" },
    mistral: { title: "Mistral", className: "Mistral" },
    qwen2: { title: "Qwen2", className: "Qwen2" },
    qwen3: { title: "Qwen3", className: "Qwen3" },
    qwen3_moe: { title: "Qwen3 MoE", className: "Qwen3Moe" },
    mixtral: { title: "Mixtral", className: "Mixtral" },
    gemma3_text: { title: "Gemma 3", className: "Gemma3Text" },
  },
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  backbone: "model",
  // transformers' class for spans calls the backbone "transformer".
  canonical: (name) => inModernSpelling(name.replace(/^(model|transformer)\./, "")),
  build: buildLlama,
};
