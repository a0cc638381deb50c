import { configReader } from "./config.js";
import { disentangledAttention, layOut, type Distances, type LaidSegment } from "./disentangled.js";
import { pipeline, rowOutputs, type State } from "./encoder.js";
import {
  activationNames,
  dense,
  denseShapes,
  lookUpRows,
  norm,
  normShapes,
  weightMatrix,
  type NamedShape,
} from "./layers.js";
import { attentionBias } from "./layout.js";
import { plus } from "./ops.js";
import { postNormLayers } from "./postnorm.js";
import type { Block, Config, Lookup, Model, ModelFamily, TokenBatch, Weights } from "./types.js";

interface DebertaState extends State {
  readonly laid: readonly LaidSegment[];
}

const debertaLayer = {
  qkv: [],
  out: "attention.output.dense",
  norm1: "attention.output.LayerNorm",
  up: "intermediate.dense",
  down: "output.dense",
  norm2: "output.LayerNorm",
};

const tables = {
  words: "embeddings.word_embeddings.weight",
  positions: "embeddings.position_embeddings.weight",
  types: "embeddings.token_type_embeddings.weight",
};
const relativeTable = "encoder.rel_embeddings.weight";
const relativeNorm = "encoder.LayerNorm";
const embeddingNorm = "embeddings.LayerNorm";

/** "p2c|c2p" as a list. */
const listed = (value: unknown): string[] =>
  [value ?? ""]
    .flat()
    .flatMap((one) => (typeof one === "string" ? one.split("|") : ["?"]))
    .map((one) => one.trim());

function parseDeberta(json: Config) {
  const { size, positive, only, flag, heads: headsOf, unsupported } = configReader(json, "deberta-v2");
  only("relative_attention", true);
  only<unknown>("conv_kernel_size", 0, undefined, null);
  if (listed(json["pos_att_type"]).sort().join() !== "c2p,p2c")
    throw unsupported("pos_att_type", ["c2p|p2c"]);
  only("pooler_hidden_act", "gelu");
  const width = size("hidden_size");
  const positions = size("max_position_embeddings");
  if (json["embedding_size"] != null) only("embedding_size", width);
  const buckets = size("position_buckets", -1, 1e5, -1);
  const farthest = Math.max(size("max_relative_positions", -1, 1e5, -1), 0) || positions;
  const distances: Distances = { buckets, farthest, span: buckets > 0 ? buckets : farthest };
  const depth = width / headsOf("num_attention_heads", width);
  if (json["attention_head_size"] != null) only("attention_head_size", depth);
  const normed = listed(json["norm_rel_ebd"]).map((name) => name.toLowerCase());
  return {
    width,
    depth,
    heads: width / depth,
    layers: size("num_hidden_layers", 1, 1000),
    inner: size("intermediate_size"),
    vocabulary: size("vocab_size"),
    padId: size("pad_token_id", 0, 1e6, 0),
    positions,
    hasPositions: flag("position_biased_input", true),
    types: size("type_vocab_size", 0, 1e6, 0),
    epsilon: positive("layer_norm_eps", 1e-7),
    activation: only("hidden_act", "gelu", ...activationNames),
    isShared: flag("share_att_key", false),
    isNormed: normed.includes("layer_norm"),
    distances,
  };
}
type DebertaConfig = ReturnType<typeof parseDeberta>;

/** A layer's attention: positions are projected as contents are, or by matrices of their own. */
function debertaAttention(config: DebertaConfig, layer: string) {
  const { width, heads, depth, epsilon, distances, isShared, isNormed } = config;
  const module = (name: string) => `${layer}.attention.self.${name}`;
  const [q, k, v] = [module("query_proj"), module("key_proj"), module("value_proj")];
  const asKeys = isShared ? k : module("pos_key_proj");
  const asQueries = isShared ? q : module("pos_query_proj");
  const shapes: NamedShape[] = [
    ...[...new Set([q, k, v, asKeys, asQueries])].flatMap((name) => denseShapes(name, width, width)),
    [relativeTable, [2 * distances.span, width]],
    ...(isNormed ? normShapes(relativeNorm, width) : []),
  ];
  const run = (w: Weights, { x, laid }: DebertaState) => {
    const table = weightMatrix(w, relativeTable);
    const relative = isNormed ? norm(w, relativeNorm, table, epsilon) : table;
    const positions = { asKeys: dense(w, relative, asKeys), asQueries: dense(w, relative, asQueries) };
    const form = { segments: laid, heads, scale: 1 / Math.sqrt(3 * depth), rows: 2 * distances.span };
    return disentangledAttention([dense(w, x, q), dense(w, x, k), dense(w, x, v)], positions, form);
  };
  return { shapes, run };
}

/** Words, and where a model has them, positions and types. */
const debertaTables = ({ vocabulary, positions, types, hasPositions }: DebertaConfig) => [
  { name: tables.words, size: vocabulary, ids: ({ ids }: TokenBatch) => ids },
  ...(hasPositions
    ? [{ name: tables.positions, size: positions, ids: (batch: TokenBatch) => batch.positions }]
    : []),
  ...(types > 0 ? [{ name: tables.types, size: types, ids: (batch: TokenBatch) => batch.types }] : []),
];

function buildDeberta(json: Config): Model {
  const config = parseDeberta(json);
  const { width, heads, layers, inner, vocabulary, epsilon, activation } = config;
  const read = debertaTables(config);
  const lookups = (batch: TokenBatch): Lookup[] => read.map(({ name, ids }) => ({ name, ids: ids(batch) }));
  const embeddings: Block<DebertaState> = {
    id: "embeddings",
    shapes: new Map([
      ...read.map(({ name, size }): NamedShape => [name, [size, width]]),
      ...normShapes(embeddingNorm, width),
    ]),
    run(w, state) {
      const x = lookups(state.batch)
        .map((lookup) => lookUpRows(w, lookup))
        .reduce((a, b) => plus(a, b));
      return { ...state, x: norm(w, embeddingNorm, x, epsilon) };
    },
  };
  return pipeline<DebertaState>({
    blocks: [
      embeddings,
      ...postNormLayers<DebertaState>("encoder.layer", layers, {
        width,
        inner,
        heads,
        epsilon,
        activation,
        names: debertaLayer,
        attention: (layer) => debertaAttention(config, layer),
      }),
      rowOutputs(),
    ],
    tables: read.map(({ name }) => name),
    width,
    heads,
    vocabulary,
    padId: Math.min(config.padId, vocabulary - 1),
    maxLength: config.positions,
    lookups,
    start(initial) {
      const bias = initial.batch.segments.map(attentionBias);
      return { ...initial, bias, laid: layOut(bias, config.distances) };
    },
  });
}

/**
 * DeBERTa of the second and third generation (He et al. 2020, 2021): BERT's layers with disentangled attention; a head
 * is a dense layer, GELU and the outputs.
 */
export const deberta: ModelFamily = {
  types: { "deberta-v2": { title: "DeBERTa", className: "DebertaV2" } },
  outputLayers: ["pool"],
  head: {
    dense: "pooler.dense",
    activation: "gelu",
    weight: "classifier.weight",
    bias: "classifier.bias",
  },
  backbone: "deberta",
  canonical: (name) => name.replace(/^deberta\./, ""),
  build: buildDeberta,
};
