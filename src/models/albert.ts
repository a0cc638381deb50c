import { bertModel, inModernSpelling, padIdOf, parseBert, pooler } from "./bert.js";
import { configReader } from "./config.js";
import { rowOutputs, type State } from "./encoder.js";
import type { BuildOptions, Config, Model, ModelFamily } from "./types.js";

const albertLayer = {
  qkv: ["query", "key", "value"].map((name) => `attention.${name}`),
  out: "attention.dense",
  norm1: "attention.LayerNorm",
  up: "ffn",
  down: "ffn_output",
  norm2: "full_layer_layer_norm",
};

const poolerName = "pooler";

/** The module of every layer: some layers share a group of modules, which a group runs one after the other. */
function layerModules(json: Config, layers: number): string[] {
  const { size } = configReader(json, "albert");
  const groups = size("num_hidden_groups", 1, layers, 1);
  const inner = size("inner_group_num", 1, 1000, 1);
  return Array.from({ length: layers }, (_, i) => Math.floor(i / (layers / groups))).flatMap((group) =>
    Array.from({ length: inner }, (_, i) => `encoder.albert_layer_groups.${group}.albert_layers.${i}`),
  );
}

function buildAlbert(json: Config, { withoutPooler = false }: BuildOptions = {}): Model {
  const config = parseBert(json, "albert", { embedded: 128, activation: "gelu_new" });
  return bertModel(config, {
    padId: padIdOf(json, "albert", config, 0),
    firstPosition: 0,
    projection: "encoder.embedding_hidden_mapping_in",
    names: albertLayer,
    layers: layerModules(json, config.layers),
    last: withoutPooler ? rowOutputs<State>() : pooler(poolerName, config.hidden),
  });
}

/**
 * ALBERT (Lan et al. 2019): BERT behind narrow embeddings, with one layer's weights in all layers (or one in each of
 * some groups). A merge has one coefficient for a weight, wherever it is used.
 */
export const albert: ModelFamily = {
  types: { albert: { title: "ALBERT", className: "Albert" } },
  outputLayers: ["pool"],
  head: { weight: "classifier.weight", bias: "classifier.bias" },
  pooler: poolerName,
  backbone: "albert",
  canonical: (name) => inModernSpelling(name.replace(/^albert\./, "")),
  build: buildAlbert,
};
