import { scalar, tanh, tensor1d, type Tensor, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";
import { UserError } from "../errors.js";
import { attention, attentionBias, type SegmentBias } from "./attention.js";
import { gelu, layerNorm, linear, lookup, plus, rows } from "./ops.js";
import type { Block, Model, ModelFamily, TokenBatch, Weights } from "./types.js";

interface BertConfig {
  hidden: number; layers: number; heads: number; intermediate: number;
  vocabulary: number; positions: number; types: number; epsilon: number; padId: number;
}

interface State {
  readonly batch: TokenBatch;
  /** Nothing yet at the start; [tokens, hidden] between blocks; [rows, hidden] after the pooler. */
  readonly x: Tensor;
  readonly bias: readonly SegmentBias[];
}

function parse(json: Readonly<Record<string, unknown>>): BertConfig {
  /** A whole number in a range that no real model leaves, so that a damaged config is refused before memory is asked for. */
  const size = (key: string, least = 1, most = 1e6, fallback?: number): number => {
    const value = json[key] ?? fallback;
    if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value as number;
    throw new UserError(`config.json: "${key}" must be a whole number from ${least} to ${most}, it is ${JSON.stringify(value)}`);
  };
  const only = (key: string, allowed: string) => {
    if ((json[key] ?? allowed) !== allowed) throw new UserError(`config.json: "${key}": ${JSON.stringify(json[key])} is not supported for bert, only "${allowed}"`);
  };
  only("hidden_act", "gelu");
  only("position_embedding_type", "absolute");
  const config = {
    hidden: size("hidden_size"), layers: size("num_hidden_layers", 1, 1000), heads: size("num_attention_heads"),
    intermediate: size("intermediate_size"), vocabulary: size("vocab_size"), positions: size("max_position_embeddings"),
    types: size("type_vocab_size"), epsilon: (json["layer_norm_eps"] as number | undefined) ?? 1e-12,
    padId: size("pad_token_id", 0, size("vocab_size") - 1, 0),
  };
  if (!(Number.isFinite(config.epsilon) && config.epsilon > 0)) throw new UserError(`config.json: "layer_norm_eps" must be a number above 0, it is ${JSON.stringify(config.epsilon)}`);
  if (config.hidden % config.heads) throw new UserError(`config.json: hidden_size ${config.hidden} is not a multiple of num_attention_heads ${config.heads}`);
  return config;
}

const pair = (module: string): string[] => [`${module}.weight`, `${module}.bias`];
/** One dense layer, or several side by side on the same input. */
const dense = (w: Weights, x: Tensor, ...modules: string[]) => linear(x as Tensor2D, modules.map((module) => {
  const [weight, bias] = pair(module) as [string, string];
  w.seen?.(weight, x as Tensor2D);
  return { weight: w(weight) as Tensor2D, bias: w(bias) as Tensor1D, frozen: w.frozen?.(weight) && w.frozen(bias) };
}));
const norm = (w: Weights, module: string, x: Tensor, epsilon: number) =>
  layerNorm(x as Tensor2D, w(`${module}.weight`) as Tensor1D, w(`${module}.bias`) as Tensor1D, epsilon);

const tables = ["word_embeddings", "position_embeddings", "token_type_embeddings"].map((table) => `embeddings.${table}.weight`);

const lookups = ({ ids, positions, types }: TokenBatch) => [ids, positions, types].map((indices, i) => ({ name: tables[i]!, ids: indices }));

function embeddings(config: BertConfig): Block<State> {
  return {
    id: "embeddings",
    names: [...tables, ...pair("embeddings.LayerNorm")],
    run(w, state) {
      const [words, places, kinds] = lookups(state.batch).map(({ name, ids }) => lookup(w, name, ids));
      return { ...state, x: norm(w, "embeddings.LayerNorm", plus(plus(words!, kinds!), places!), config.epsilon) };
    },
  };
}

/** One encoder layer, post-norm: attention, add and norm, feed-forward, add and norm. */
function encoderLayer(config: BertConfig, index: number): Block<State> {
  const at = `encoder.layer.${index}`;
  const modules = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
    "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"];
  return {
    id: at,
    names: modules.flatMap((module) => pair(`${at}.${module}`)),
    run(w, state) {
      const { x, bias } = state;
      const projected = dense(w, x, ...["query", "key", "value"].map((name) => `${at}.attention.self.${name}`));
      const seen = attention(projected, bias, config.heads);
      const attended = norm(w, `${at}.attention.output.LayerNorm`, plus(dense(w, seen, `${at}.attention.output.dense`), x as Tensor2D), config.epsilon);
      const inner = gelu(dense(w, attended, `${at}.intermediate.dense`));
      return { ...state, x: norm(w, `${at}.output.LayerNorm`, plus(dense(w, inner, `${at}.output.dense`), attended), config.epsilon) };
    },
  };
}

/** The first token of every row, through a dense layer and tanh. */
const pooler: Block<State> = {
  id: "pooler",
  names: pair("pooler.dense"),
  run(w, state) {
    const first = tensor1d(state.batch.first, "int32");
    return { ...state, x: tanh(dense(w, rows(state.x as Tensor2D, first), "pooler.dense")) };
  },
};

function shapes(config: BertConfig, names: readonly string[]): Map<string, number[]> {
  const { hidden, intermediate } = config;
  const counts: Record<string, number> = { word_embeddings: config.vocabulary, position_embeddings: config.positions, token_type_embeddings: config.types };
  const shapeOf = (name: string): number[] => {
    const [, module, kind] = /([^.]+)\.(weight|bias)$/.exec(name)!;
    const parent = name.split(".").at(-3);
    const wide = parent === "intermediate";
    const rows = counts[module!];
    if (rows !== undefined) return [rows, hidden];
    if (module === "LayerNorm") return [hidden];
    if (kind === "bias") return [wide ? intermediate : hidden];
    if (wide) return [intermediate, hidden];
    return parent === "output" && !name.includes(".attention.") ? [hidden, intermediate] : [hidden, hidden];
  };
  return new Map(names.map((name) => [name, shapeOf(name)]));
}

function build(json: Readonly<Record<string, unknown>>): Model<State> {
  const config = parse(json);
  const blocks = [embeddings(config), ...Array.from({ length: config.layers }, (_, i) => encoderLayer(config, i)), pooler];
  return {
    blocks,
    parameters: shapes(config, blocks.flatMap((block) => block.names)),
    tables: new Set(tables),
    width: config.hidden, heads: config.heads, vocabulary: config.vocabulary, maxLength: config.positions, padId: config.padId,
    lookups,
    carried: ({ x }) => [x],
    carry: (start, [x]) => ({ ...start, x: x! }),
    start: (batch) => ({ batch, x: scalar(0), bias: batch.segments.map(attentionBias) }),
    features: (state) => state.x as Tensor2D,
  };
}

/** BERT (Devlin et al. 2018) as transformers' `BertModel` with pooler; heads `classifier.*`. */
export const bert: ModelFamily = {
  type: "bert",
  head: { weight: "classifier.weight", bias: "classifier.bias" },
  canonical: (name) => name.replace(/^bert\./, "").replace(/LayerNorm\.gamma$/, "LayerNorm.weight").replace(/LayerNorm\.beta$/, "LayerNorm.bias"),
  build: build,
};
