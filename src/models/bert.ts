import { add, scalar, tanh, tensor1d, tensor4d, type Tensor, type Tensor1D, type Tensor2D, type Tensor4D } from "@tensorflow/tfjs-core";
import { UserError } from "../errors.js";
import { attention, gelu, layerNorm, linear, rows } from "./ops.js";
import type { Block, Model, ModelFamily, TokenBatch, Weights } from "./types.js";

interface BertConfig {
  hidden: number; layers: number; heads: number; intermediate: number;
  vocabulary: number; positions: number; types: number; epsilon: number; padId: number;
}

interface State {
  readonly batch: TokenBatch;
  /** Nothing yet at the start; [size · length, hidden] between blocks; [size, hidden] after the pooler. */
  readonly x: Tensor;
  readonly bias: Tensor4D;
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
const dense = (w: Weights, module: string, x: Tensor) => linear(x as Tensor2D, w(`${module}.weight`) as Tensor2D, w(`${module}.bias`) as Tensor1D);
const norm = (w: Weights, module: string, x: Tensor, epsilon: number) =>
  layerNorm(x as Tensor2D, w(`${module}.weight`) as Tensor1D, w(`${module}.bias`) as Tensor1D, epsilon);

function embeddings(config: BertConfig): Block<State> {
  const tables = ["word_embeddings", "position_embeddings", "token_type_embeddings"].map((table) => `embeddings.${table}.weight`);
  return {
    id: "embeddings",
    names: [...tables, ...pair("embeddings.LayerNorm")],
    run(w, state) {
      const { ids, types, length } = state.batch;
      const indices = [ids, ids.map((_, i) => i % length), types];
      const [words, positions, segments] = tables.map((name, i) => rows(w(name) as Tensor2D, tensor1d(indices[i]!, "int32")));
      return { ...state, x: norm(w, "embeddings.LayerNorm", add(add(words!, segments!), positions!), config.epsilon) };
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
      const { batch: { size, length }, x, bias } = state;
      const project = (name: string) => dense(w, `${at}.attention.self.${name}`, x);
      const seen = attention(project("query"), project("key"), project("value"), bias, { size, length, heads: config.heads });
      const attended = norm(w, `${at}.attention.output.LayerNorm`, add(dense(w, `${at}.attention.output.dense`, seen), x), config.epsilon);
      const inner = gelu(dense(w, `${at}.intermediate.dense`, attended));
      return { ...state, x: norm(w, `${at}.output.LayerNorm`, add(dense(w, `${at}.output.dense`, inner), attended), config.epsilon) };
    },
  };
}

/** The first token of every row, through a dense layer and tanh. */
const pooler: Block<State> = {
  id: "pooler",
  names: pair("pooler.dense"),
  run(w, state) {
    const { size, length } = state.batch;
    const first = tensor1d(Int32Array.from({ length: size }, (_, i) => i * length), "int32");
    return { ...state, x: tanh(dense(w, "pooler.dense", rows(state.x as Tensor2D, first))) };
  },
};

function shapes(config: BertConfig, names: readonly string[]): Map<string, number[]> {
  const { hidden, intermediate } = config;
  const tables: Record<string, number> = { word_embeddings: config.vocabulary, position_embeddings: config.positions, token_type_embeddings: config.types };
  const shapeOf = (name: string): number[] => {
    const [, module, kind] = /([^.]+)\.(weight|bias)$/.exec(name)!;
    const parent = name.split(".").at(-3);
    const wide = parent === "intermediate";
    const rows = tables[module!];
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
    width: config.hidden, vocabulary: config.vocabulary, maxLength: config.positions, padId: config.padId,
    start(batch) {
      // The lowest finite float32, as transformers uses: softmax gives such a token exactly zero.
      const bias = Float32Array.from(batch.mask, (seen) => (seen ? 0 : -3.4028234663852886e38));
      return { batch, x: scalar(0), bias: tensor4d(bias, [batch.size, 1, 1, batch.length]) };
    },
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
