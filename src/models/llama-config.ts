/** What Llama's kin have in common, and what each does in its own way: from config.json. */
import { configReader, sectionOf, slidingLayers, type ConfigReader } from "./config.js";
import { activationNames, activations } from "./layers.js";
import { frequencies, rotarySettings, type Frequencies, type RotaryForm } from "./rope.js";
import type { Mixture } from "./mixture.js";
import type { Config } from "./types.js";

/** How a layer's tokens see each other: in all layers alike, or in two ways. */
export interface Sight {
  /** How far back a token sees. */
  readonly window: number;
  readonly rotations: Frequencies;
}

interface Kin {
  readonly json: Config;
  readonly reader: ConfigReader;
  readonly layers: number;
  readonly positions: number;
  /** Of a head. */
  readonly depth: number;
}

/** What a `model_type` does in its own way. */
interface KinForm {
  /** Biases of the projections to queries, keys and values, whatever the config says. */
  readonly qkvBias?: true;
  /** Queries and keys are normalised: a head at a time, or all heads together. */
  readonly qkNorm?: "head" | "all";
  /** Norms stand behind attention and feed-forward alone. */
  readonly isPostNorm?: true;
  /** Projections to queries, keys and values are one matrix, and so are those to gate and up. */
  readonly isFused?: true;
  /** A head's depth where the config names none; default: the width's part. */
  readonly depth?: number;
  readonly epsilon?: number;
  readonly isTied?: true;
  /** Gemma's norms multiply by 1 + w, and stand behind attention and feed-forward too: of which generation. */
  readonly gemma?: 2 | 3;
  readonly end?: number;
  /** Experts in place of a feed-forward, of the layers that have them. */
  readonly mixture?: (kin: Kin) => Mixture;
  /** Ways of seeing, and which each layer has. Default: all see everything. */
  readonly sights?: (kin: Kin) => Sights;
}

interface Sights {
  readonly sights: readonly Sight[];
  /** Of each layer, which of them it has. */
  readonly sightOf: readonly number[];
}

const isAbsent = (json: Config, key: string): boolean => json[key] == null;

/** Layers that see everything, and layers that see a window. */
function twoSights(full: Sight, sliding: Sight, isSliding: readonly boolean[]): Sights {
  return { sights: [full, sliding], sightOf: isSliding.map(Number) };
}

function oneSight({ json, depth, positions, layers }: Kin, window: number, form?: RotaryForm): Sights {
  const rotations = frequencies(json, depth, positions, form);
  return { sights: [{ window, rotations }], sightOf: Array<number>(layers).fill(0) };
}

/** Mistral's layers all see a window. */
const windowed = (kin: Kin, form?: RotaryForm): Sights =>
  oneSight(kin, isAbsent(kin.json, "sliding_window") ? Infinity : kin.reader.size("sliding_window"), form);

/** Phi-3's kin: a part of a head may turn, and LongRoPE's factors are known. */
function partlyTurned(kin: Kin): Sights {
  const part = configReader(rotarySettings(kin.json), "phi3").positive("partial_rotary_factor", 1);
  return windowed(kin, { part, isLong: true });
}

/** Qwen's configs name a window even where none is used; where it is, the last layers have it. */
function switchedWindow(kin: Kin): Sights {
  const { json, reader, layers } = kin;
  const all = oneSight(kin, Infinity);
  if (!reader.flag("use_sliding_window", false) || isAbsent(json, "sliding_window")) return all;
  const first = reader.size("max_window_layers", 0, 1e6, layers);
  const [full = { window: Infinity, rotations: frequencies(json, kin.depth, kin.positions) }] = all.sights;
  const sliding = { ...full, window: reader.size("sliding_window") };
  return twoSights(
    full,
    sliding,
    slidingLayers(json, layers, (i) => i >= first),
  );
}

/** Gemma 2: every other layer sees a window, the first among them. */
function alternatingSights(kin: Kin): Sights {
  const { json, reader, layers, depth, positions } = kin;
  const rotations = frequencies(json, depth, positions);
  return twoSights(
    { window: Infinity, rotations },
    { window: reader.size("sliding_window", 1, 1e6, 4096), rotations },
    slidingLayers(json, layers, (i) => i % 2 === 0),
  );
}

/** Gemma 3: of six layers five see a window, with rotations of their own. */
function gemmaSights(kin: Kin): Sights {
  const { json, reader, layers, depth, positions } = kin;
  const pattern = reader.size("sliding_window_pattern", 1, 1000, 6);
  const given = sectionOf(json, "rope_parameters");
  const { partial_rotary_factor } = json;
  const rotations = (kind: string, theta: unknown, scaling: unknown) =>
    frequencies(
      {
        partial_rotary_factor,
        rope_theta: theta,
        rope_scaling: scaling,
        rope_parameters: sectionOf(given, kind),
      },
      depth,
      positions,
    );
  return twoSights(
    {
      window: Infinity,
      rotations: rotations("full_attention", json["rope_theta"] ?? 1e6, json["rope_scaling"]),
    },
    {
      window: reader.size("sliding_window", 1, 1e6, 4096),
      rotations: rotations("sliding_attention", json["rope_local_base_freq"] ?? 1e4, undefined),
    },
    slidingLayers(json, layers, (i) => (i + 1) % pattern !== 0),
  );
}

/** Qwen3's windows, where it uses them, are all layers' in its mixtures. */
const switchedForAll = (kin: Kin): Sights =>
  kin.reader.flag("use_sliding_window", false) ? windowed(kin) : oneSight(kin, Infinity);

/** How many experts there are: configs from before transformers 5 have Qwen's name for it. */
function expertsOf({ json, reader }: Kin) {
  const count = reader.size(
    isAbsent(json, "num_local_experts") ? "num_experts" : "num_local_experts",
    1,
    10_000,
  );
  return { experts: count, chosen: reader.size("num_experts_per_tok", 1, count) };
}

const qwenMixture = (kin: Kin): Mixture => ({
  ...expertsOf(kin),
  inner: kin.reader.size("moe_intermediate_size"),
  isNormalised: kin.reader.flag("norm_topk_prob", false),
});

const mixtralMixture = (kin: Kin): Mixture => ({
  ...expertsOf(kin),
  inner: kin.reader.size("intermediate_size"),
  isNormalised: true,
});

/** Which layers are mixtures: all, every so manieth, or all but some. */
function mixedLayers({ json, reader, layers }: Kin): boolean[] {
  const step = reader.size("decoder_sparse_step", 1, 1000, 1);
  const plain: unknown[] = [json["mlp_only_layers"] ?? []].flat();
  return Array.from({ length: layers }, (_, i) => (i + 1) % step === 0 && !plain.includes(i));
}

const forms: Readonly<Record<string, KinForm>> = {
  mistral: { sights: windowed },
  qwen2: { qkvBias: true, sights: switchedWindow },
  qwen3: { qkNorm: "head", depth: 128, sights: switchedWindow },
  qwen3_moe: { qkNorm: "head", depth: 128, sights: switchedForAll, mixture: qwenMixture },
  mixtral: { sights: windowed, mixture: mixtralMixture },
  olmo2: { qkNorm: "all", isPostNorm: true },
  phi3: { isFused: true, sights: partlyTurned },
  gemma2: { depth: 256, isTied: true, gemma: 2, end: 1, sights: alternatingSights },
  gemma3_text: { qkNorm: "head", depth: 256, isTied: true, gemma: 3, end: 1, sights: gemmaSights },
};

function headShape(reader: ConfigReader, json: Config, width: number, otherwise: number | undefined) {
  if (isAbsent(json, "head_dim") && otherwise === undefined) {
    const heads = reader.heads("num_attention_heads", width);
    return { heads, depth: width / heads };
  }
  return { heads: reader.size("num_attention_heads"), depth: reader.size("head_dim", 2, 1e6, otherwise) };
}

/** What Gemma 2 caps scores at: those of attention, and those of tokens. The third generation has none. */
function capsOf(generation: KinForm["gemma"], { only, positive }: ConfigReader, json: Config) {
  if (generation === undefined) return { attentionCap: undefined, outputCap: undefined };
  only<unknown>("use_bidirectional_attention", false, null);
  const cap = (key: string, usual: number): number | undefined => {
    if (generation === 2) return json[key] === null ? undefined : positive(key, usual);
    only<unknown>(key, null, undefined);
    return undefined;
  };
  return {
    attentionCap: cap("attn_logit_softcapping", 50),
    outputCap: cap("final_logit_softcapping", 30),
  };
}

/** Reads a config. @throws UserError naming the setting that is not supported */
export function parseLlama(json: Config) {
  const type = String(json["model_type"]);
  const form = forms[type] ?? {};
  const reader = configReader(json, type);
  const { size, positive, only, flag } = reader;
  const width = size("hidden_size");
  const { heads, depth } = headShape(reader, json, width, form.depth);
  const layers = size("num_hidden_layers", 1, 1000);
  const positions = size("max_position_embeddings", 1, 1e8);
  const see = form.sights ?? ((kin: Kin) => oneSight(kin, Infinity));
  const bare = !flag("attention_bias", false);
  const activation = form.gemma
    ? only("hidden_activation", "gelu_pytorch_tanh", ...activationNames)
    : only("hidden_act", "silu", ...activationNames);
  const kin = { json, reader, layers, positions, depth };
  return {
    ...see(kin),
    ...capsOf(form.gemma, reader, json),
    /** Of each layer, its mixture of experts; undefined where it has one feed-forward. */
    mixtures: mixedLayers(kin).map((isMixed) => (isMixed ? form.mixture?.(kin) : undefined)),
    width,
    heads,
    depth,
    layers,
    positions,
    keyHeads: size("num_key_value_heads", 1, heads, heads),
    inner: size("intermediate_size"),
    vocabulary: size("vocab_size"),
    epsilon: positive("rms_norm_eps", 1e-6),
    activation: activations[activation],
    isTied: flag("tie_word_embeddings", form.isTied ?? false),
    end: form.end ?? 2,
    qkNorm: form.qkNorm,
    isFused: form.isFused ?? false,
    isPostNorm: form.isPostNorm ?? false,
    /** Norms behind attention and feed-forward, before what they make is added. */
    isSandwiched: form.gemma !== undefined,
    /** Added to the norms' weights. */
    normOffset: form.gemma ? 1 : 0,
    /** What embeddings are multiplied by. */
    embeddingScale: form.gemma ? Math.fround(Math.sqrt(width)) : 1,
    /** What Q Kᵀ is multiplied by. */
    scale: 1 / Math.sqrt(form.gemma ? positive("query_pre_attn_scalar", 256) : depth),
    // Qwen2's projections have biases but for the last.
    qkvOptions: { bare: !form.qkvBias && bare },
    outOptions: { bare },
    mlpOptions: { bare: !flag("mlp_bias", false) },
  };
}
export type LlamaConfig = ReturnType<typeof parseLlama>;
