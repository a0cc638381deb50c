import { tanh } from "@tensorflow/tfjs-core";
import { activationNames, dense, denseShapes, norm, normShapes, lookUpRows } from "./layers.js";
import { attentionBias } from "./layout.js";
import { configReader } from "./config.js";
import { shifted, pipeline, rowOutputs, type State } from "./encoder.js";
import { headInputs } from "./outputs.js";
import { plus } from "./ops.js";
import { postNormLayers } from "./postnorm.js";
import type { Block, BuildOptions, Config, Model, ModelFamily, TokenBatch } from "./types.js";

function parseBert(json: Config, type: string) {
  const { size, positive, only, heads } = configReader(json, type);
  only("position_embedding_type", "absolute");
  const hidden = size("hidden_size");
  return {
    hidden,
    /** Of the embeddings, which ELECTRA widens to that of the layers. */
    embedded: type === "electra" ? size("embedding_size", 1, 1e6, hidden) : hidden,
    layers: size("num_hidden_layers", 1, 1000),
    heads: heads("num_attention_heads", hidden),
    intermediate: size("intermediate_size"),
    vocabulary: size("vocab_size"),
    positions: size("max_position_embeddings"),
    types: size("type_vocab_size"),
    epsilon: positive("layer_norm_eps", 1e-12),
    activation: only("hidden_act", "gelu", ...activationNames),
  };
}
type BertConfig = ReturnType<typeof parseBert>;

const bertTables = {
  words: "embeddings.word_embeddings.weight",
  positions: "embeddings.position_embeddings.weight",
  types: "embeddings.token_type_embeddings.weight",
};

/** @param firstPosition number of the position embedding that a row's first token gets */
const bertLookups = (batch: TokenBatch, firstPosition: number) => ({
  words: { name: bertTables.words, ids: batch.ids },
  positions: { name: bertTables.positions, ids: shifted(batch.positions, firstPosition) },
  types: { name: bertTables.types, ids: batch.types },
});

/** What widens embeddings. */
const projection = "embeddings_project";

function bertEmbeddings(config: BertConfig, firstPosition: number): Block<State> {
  const { embedded, hidden, epsilon } = config;
  const isWidened = embedded !== hidden;
  return {
    id: "embeddings",
    shapes: new Map([
      [bertTables.words, [config.vocabulary, embedded]],
      [bertTables.positions, [config.positions, embedded]],
      [bertTables.types, [config.types, embedded]],
      ...normShapes("embeddings.LayerNorm", embedded),
      ...(isWidened ? denseShapes(projection, hidden, embedded) : []),
    ]),
    run(w, state) {
      const lookups = bertLookups(state.batch, firstPosition);
      const typed = plus(lookUpRows(w, lookups.words), lookUpRows(w, lookups.types));
      const positioned = plus(typed, lookUpRows(w, lookups.positions));
      const x = norm(w, "embeddings.LayerNorm", positioned, epsilon);
      return { ...state, x: isWidened ? dense(w, x, projection) : x };
    },
  };
}

const bertLayer = {
  qkv: ["query", "key", "value"].map((name) => `attention.self.${name}`),
  out: "attention.output.dense",
  norm1: "attention.output.LayerNorm",
  up: "intermediate.dense",
  down: "output.dense",
  norm2: "output.LayerNorm",
};

/** The first token of every row, through a dense layer and tanh. */
const pooler = (hidden: number): Block<State> => ({
  id: "pooler",
  shapes: new Map(denseShapes(poolerName, hidden, hidden)),
  run: (w, state) => ({ ...state, x: tanh(dense(w, headInputs(state), poolerName)) }),
});
const poolerName = "pooler.dense";

/** What BERT and RoBERTa do in their own ways. */
interface BertForm {
  readonly padId: number;
  /** The embedding of a row's first token's position. */
  readonly firstPosition: number;
  /** The block behind the layers. */
  readonly last: Block<State>;
}

function bertModel(config: BertConfig, { padId, firstPosition, last }: BertForm): Model {
  const { hidden, layers, heads, vocabulary, intermediate, epsilon, activation } = config;
  return pipeline<State>({
    blocks: [
      bertEmbeddings(config, firstPosition),
      ...postNormLayers("encoder.layer", layers, {
        width: hidden,
        inner: intermediate,
        heads,
        epsilon,
        activation,
        names: bertLayer,
      }),
      last,
    ],
    tables: Object.values(bertTables),
    width: hidden,
    heads,
    vocabulary,
    padId,
    maxLength: config.positions - firstPosition,
    lookups: (batch) => Object.values(bertLookups(batch, firstPosition)),
    start: (initial) => ({ ...initial, bias: initial.batch.segments.map(attentionBias) }),
  });
}

const padIdOf = (json: Config, type: string, { vocabulary }: BertConfig, fallback: number): number =>
  configReader(json, type).size("pad_token_id", 0, vocabulary - 1, fallback);

function buildBert(json: Config, { withoutPooler = false }: BuildOptions = {}): Model {
  const config = parseBert(json, "bert");
  const padId = padIdOf(json, "bert", config, 0);
  const last = withoutPooler ? rowOutputs<State>() : pooler(config.hidden);
  return bertModel(config, { padId, firstPosition: 0, last });
}

function buildRoberta(json: Config): Model {
  const config = parseBert(json, "roberta");
  const padId = padIdOf(json, "roberta", config, 1);
  return bertModel(config, { padId, firstPosition: padId + 1, last: rowOutputs() });
}

function buildElectra(json: Config): Model {
  const config = parseBert(json, "electra");
  const padId = padIdOf(json, "electra", config, 0);
  return bertModel(config, { padId, firstPosition: 0, last: rowOutputs() });
}

const inModernSpelling = (name: string): string =>
  name.replace(/LayerNorm\.gamma$/, "LayerNorm.weight").replace(/LayerNorm\.beta$/, "LayerNorm.bias");

/** BERT (Devlin et al. 2018) as transformers' `BertModel` with pooler; heads `classifier.*`. */
export const bert: ModelFamily = {
  types: { bert: { title: "BERT", className: "Bert" } },
  outputLayers: ["pool"],
  head: { weight: "classifier.weight", bias: "classifier.bias" },
  pooler: poolerName,
  backbone: "bert",
  canonical: (name) => inModernSpelling(name.replace(/^bert\./, "")),
  build: buildBert,
};

/** A dense layer, tanh and the outputs. */
export const robertaHead = {
  dense: "classifier.dense",
  weight: "classifier.out_proj.weight",
  bias: "classifier.out_proj.bias",
  denseOfChoice: "pooler.dense",
};

/** Names of heads in RoBERTa's form: of a choice's, transformers calls the dense layer a pooler, or a summary. */
export const canonicalRoberta =
  (backbone: RegExp) =>
  (name: string): string =>
    inModernSpelling(
      name
        .replace(backbone, "")
        .replace(/^(pooler\.dense|sequence_summary\.summary)\./, "classifier.dense.")
        .replace(/^classifier\.(weight|bias)$/, "classifier.out_proj.$1"),
    );

/**
 * RoBERTa (Liu et al. 2019), XLM-R too: positions count from the padding id on; a head is a dense layer, tanh and the
 * outputs, whether transformers calls the first of them the head's own (classification) or a pooler (choices).
 */
export const roberta: ModelFamily = {
  types: {
    roberta: { title: "RoBERTa", className: "Roberta" },
    "xlm-roberta": { title: "XLM-RoBERTa", className: "XLMRoberta" },
    camembert: { title: "CamemBERT", className: "Camembert" },
  },
  outputLayers: ["pool"],
  head: robertaHead,
  backbone: "roberta",
  canonical: canonicalRoberta(/^(roberta|model)\./),
  build: buildRoberta,
};

/**
 * ELECTRA (Clark et al. 2020), its discriminator: BERT's layers without a pooler, behind embeddings that may be
 * narrower; a head is RoBERTa's with GELU.
 */
export const electra: ModelFamily = {
  types: { electra: { title: "ELECTRA", className: "Electra" } },
  outputLayers: ["pool"],
  head: { ...robertaHead, denseOfChoice: "sequence_summary.summary", activation: "gelu" },
  backbone: "electra",
  canonical: canonicalRoberta(/^electra\./),
  build: buildElectra,
};
