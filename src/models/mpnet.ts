import { configReader } from "./config.js";
import { positionedTokens, pipeline, rowOutputs, type State } from "./encoder.js";
import { activationNames, weightMatrix } from "./layers.js";
import { attentionBias } from "./layout.js";
import { postNormLayers } from "./postnorm.js";
import { encoderBuckets } from "./relative-positions.js";
import { canonicalRoberta, robertaHead } from "./bert.js";
import type { Config, Model, ModelFamily } from "./types.js";

interface MpnetState extends State {
  /** Of each segment, the bucket of every pair of positions. */
  readonly buckets: readonly Int32Array[];
}

/** What transformers counts with, whatever the config says. */
const relative = { buckets: 32, distance: 128 };
/** The padding's number, behind which positions begin: transformers has it fixed. */
const padId = 1;

const mpnetLayer = {
  qkv: ["q", "k", "v"].map((name) => `attention.attn.${name}`),
  out: "attention.attn.o",
  norm1: "attention.LayerNorm",
  up: "intermediate.dense",
  down: "output.dense",
  norm2: "output.LayerNorm",
};

const table = "encoder.relative_attention_bias.weight";

function buildMpnet(json: Config): Model {
  const { size, positive, only, heads: headsOf } = configReader(json, "mpnet");
  only("relative_attention_num_buckets", relative.buckets);
  const width = size("hidden_size");
  const heads = headsOf("num_attention_heads", width);
  const epsilon = positive("layer_norm_eps", 1e-12);
  const words = { name: "embeddings.word_embeddings.weight", size: size("vocab_size") };
  const positions = { name: "embeddings.position_embeddings.weight", size: size("max_position_embeddings") };
  const embeddings = positionedTokens<MpnetState>({
    id: "embeddings",
    words,
    positions,
    firstPosition: padId + 1,
    width,
    norm: { module: "embeddings.LayerNorm", epsilon },
  });
  const layers = postNormLayers<MpnetState>("encoder.layer", size("num_hidden_layers", 1, 1000), {
    width,
    inner: size("intermediate_size"),
    heads,
    epsilon,
    activation: only("hidden_act", "gelu", ...activationNames),
    names: mpnetLayer,
    relative: {
      shape: [table, [relative.buckets, heads]],
      of: (w, { buckets }) => ({ table: weightMatrix(w, table), buckets }),
    },
  });
  return pipeline<MpnetState>({
    blocks: [embeddings.block, ...layers, rowOutputs()],
    tables: [words.name, positions.name],
    width,
    heads,
    vocabulary: words.size,
    padId,
    maxLength: positions.size - padId - 1,
    lookups: embeddings.lookups,
    start: (initial) => ({
      ...initial,
      bias: initial.batch.segments.map(attentionBias),
      buckets: encoderBuckets(initial.batch.segments, relative),
    }),
  });
}

/**
 * MPNet (Song et al. 2020): RoBERTa's layers and heads, and T5's relative positions, whose one table all layers share.
 */
export const mpnet: ModelFamily = {
  types: { mpnet: { title: "MPNet", className: "MPNet" } },
  outputLayers: ["pool"],
  head: robertaHead,
  backbone: "mpnet",
  canonical: canonicalRoberta(/^mpnet\./),
  build: buildMpnet,
};
