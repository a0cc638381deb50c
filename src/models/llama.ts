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
import { columns, multiplied, plus, spansOf, times } from "./ops.js";
import { angles, rotary, type Angles } from "./rope.js";
import type { Block, BuildOptions, Config, Model, ModelFamily, Weights } from "./types.js";

/** A way of seeing, of a batch. */
interface Side extends SelfAttentionState {
  readonly angles: Angles;
}

interface LlamaState extends State {
  readonly sides: readonly Side[];
}

/** A module's whole name, by its own. */
type Named = (name: string) => string;

/** A norm by its module. */
function normalised(w: Weights, module: string, x: Tensor2D, { epsilon, normOffset }: LlamaConfig): Tensor2D {
  if (normOffset === 0) return rms(w, module, x, epsilon);
  return rmsNorm(x, add<Tensor1D>(weightVector(w, `${module}.weight`), normOffset), epsilon);
}

/** Queries or keys [tokens, heads · depth], each head by itself or all together, where the family does so. */
function normalisedHeads(w: Weights, module: string, x: Tensor2D, config: LlamaConfig): Tensor2D {
  if (config.qkNorm === undefined) return x;
  if (config.qkNorm === "all") return normalised(w, module, x, config);
  const heads: Tensor2D = reshape(x, [-1, config.depth]);
  return reshape(normalised(w, module, heads, config), x.shape);
}

/** A layer's projections to queries, keys and values: three, or one matrix that holds them. */
function projections({ width, heads, depth, keyHeads, isFused, qkvOptions }: LlamaConfig, module: Named) {
  const sizes = [heads, keyHeads, keyHeads].map((count) => count * depth);
  const names = ["q_proj", "k_proj", "v_proj"].map(module);
  if (!isFused) {
    const each = (i: number): NamedShape[] => denseShapes(at(names, i), at(sizes, i), width, qkvOptions);
    return {
      shapes: names.flatMap((_, i) => each(i)),
      run: (w: Weights, x: Tensor2D) => names.map((name) => dense(w, x, name, qkvOptions)),
    };
  }
  const spans = spansOf(sizes);
  const fused = module("qkv_proj");
  return {
    shapes: denseShapes(
      fused,
      sizes.reduce((a, b) => a + b),
      width,
      qkvOptions,
    ),
    run(w: Weights, x: Tensor2D) {
      const all = dense(w, x, fused, qkvOptions);
      return spans.map((span) => columns(all, span));
    },
  };
}

/** A layer's attention to its own rows. */
function selfAttention(config: LlamaConfig, layer: string, sight: number) {
  const { width, heads, depth, keyHeads, scale, attentionCap: cap, qkNorm, outOptions } = config;
  const module: Named = (name) => `${layer}.self_attn.${name}`;
  const [o, qNorm, kNorm] = [module("o_proj"), module("q_norm"), module("k_norm")];
  const project = projections(config, module);
  const normSize = (count: number) => (qkNorm === "all" ? count * depth : depth);
  const norms: NamedShape[] = [
    [`${qNorm}.weight`, [normSize(heads)]],
    [`${kNorm}.weight`, [normSize(keyHeads)]],
  ];
  const shapes: NamedShape[] = [
    ...project.shapes,
    ...denseShapes(o, width, heads * depth, outOptions),
    ...(qkNorm ? norms : []),
  ];
  const run = (w: Weights, x: Tensor2D, { sides, cache }: LlamaState): Tensor2D => {
    const side = at(sides, sight);
    const made = project.run(w, x);
    const query = rotary(normalisedHeads(w, qNorm, at(made, 0), config), heads, side.angles);
    const key = rotary(normalisedHeads(w, kNorm, at(made, 1), config), keyHeads, side.angles);
    const attended = attendBack(layer, [query, key, at(made, 2)], { ...side, cache }, { heads, scale, cap });
    return dense(w, attended, o, outOptions);
  };
  return { shapes, run };
}

/** A layer's gated feed-forward. */
function feedForward({ width, inner, activation, isFused, mlpOptions }: LlamaConfig, layer: string) {
  const module: Named = (name) => `${layer}.mlp.${name}`;
  const [gate, up, down] = [module("gate_proj"), module("up_proj"), module("down_proj")];
  const both = module("gate_up_proj");
  const entry = isFused
    ? denseShapes(both, 2 * inner, width, mlpOptions)
    : [gate, up].flatMap((name) => denseShapes(name, inner, width, mlpOptions));
  const halves = (w: Weights, x: Tensor2D): [gate: Tensor2D, up: Tensor2D] => {
    if (!isFused) return [dense(w, x, gate, mlpOptions), dense(w, x, up, mlpOptions)];
    const all = dense(w, x, both, mlpOptions);
    return [columns(all, { start: 0, size: inner }), columns(all, { start: inner, size: inner })];
  };
  const shapes: NamedShape[] = [...entry, ...denseShapes(down, width, inner, mlpOptions)];
  const run = (w: Weights, x: Tensor2D): Tensor2D => {
    const [opened, made] = halves(w, x);
    return dense(w, times(activation(opened), made), down, mlpOptions);
  };
  return { shapes, run };
}

/** A layer's norms, by where they stand. */
interface LayerNorms {
  /** In front of attention, and behind it. */
  readonly before?: string;
  readonly behindAttention?: string;
  /** In front of the feed-forward, and behind it. */
  readonly between?: string;
  readonly behindForward?: string;
}

/**
 * In front of attention and feed-forward; Gemma has one behind each too and other names for them, OLMo 2 those alone.
 */
function normNames(layer: string, { isSandwiched, isPostNorm }: LlamaConfig): LayerNorms {
  const norm = (name: string) => `${layer}.${name}_layernorm`;
  const before = norm("input");
  if (isPostNorm) return { behindAttention: norm("post_attention"), behindForward: norm("post_feedforward") };
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
  const through = (w: Weights, module: string | undefined, x: Tensor2D): Tensor2D =>
    module === undefined ? x : normalised(w, module, x, config);
  return {
    id: layer,
    shapes: new Map([
      ...Object.values(norms).map((name: string): NamedShape => [`${name}.weight`, [config.width]]),
      ...attention.shapes,
      ...forward.shapes,
    ]),
    run(w, state) {
      const attended = attention.run(w, through(w, before, state.x), state);
      const middle = plus(state.x, through(w, behindAttention, attended));
      const made = forward.run(w, through(w, between, middle));
      return { ...state, x: plus(middle, through(w, behindForward, made)) };
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
      cap: config.outputCap,
    },
    tables: [llamaWords],
    width,
    heads,
    // Capped scores are kept beside their softmax.
    keptScores: config.attentionCap === undefined ? 1 : 2,
    vocabulary,
    maxLength: Math.min(positions, 1e6, ...sights.map(({ rotations }) => rotations.positions ?? Infinity)),
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
 * Llama 2 and 3 (Touvron et al. 2023), Mistral, Qwen2, Qwen3, OLMo 2, Phi-3 and 4, Gemma 2, Gemma 3's text models, and
 * the mixtures of experts Mixtral and Qwen3 MoE; as a language model, or with a head on the last token (`score`).
 */
export const llama: ModelFamily = {
  types: {
    llama: { title: "Llama", className: "Llama" },
    mistral: { title: "Mistral", className: "Mistral" },
    qwen2: { title: "Qwen2", className: "Qwen2" },
    qwen3: { title: "Qwen3", className: "Qwen3" },
    qwen3_moe: { title: "Qwen3 MoE", className: "Qwen3Moe" },
    mixtral: { title: "Mixtral", className: "Mixtral" },
    olmo2: { title: "OLMo 2", className: "Olmo2" },
    phi3: { title: "Phi-3", className: "Phi3" },
    gemma2: { title: "Gemma 2", className: "Gemma2" },
    gemma3_text: { title: "Gemma 3", className: "Gemma3Text" },
  },
  outputLayers: ["score", "pool"],
  head: { weight: "score.weight" },
  backbone: "model",
  // transformers' class for spans calls the backbone "transformer".
  canonical: (name) => inModernSpelling(name.replace(/^(model|transformer)\./, "")),
  build: buildLlama,
};
