import { tanh } from "@tensorflow/tfjs-core";
import {
  activationNames,
  dense,
  denseShapes,
  lookUpRows,
  norm,
  normShapes,
  type ActivationName,
} from "./layers.js";
import { attentionBias } from "./layout.js";
import { configReader } from "./config.js";
import { shifted, pipeline, rowOutputs, type State } from "./encoder.js";
import { headInputs } from "./outputs.js";
import { plus } from "./ops.js";
import { postNormLayer, type PostNormNames } from "./postnorm.js";
import type { Block, BuildOptions, Config, Model, ModelFamily, TokenBatch } from "./types.js";

/** @param usual what transformers takes where a config does not say */
export function parseBert(
  json: Config,
  type: string,
  usual: { readonly embedded?: number; readonly activation?: ActivationName } = {},
) {
  const { size, positive, only, heads } = configReader(json, type);
  only("position_embedding_type", "absolute");
  const hidden = size("hidden_size");
  return {
    hidden,
    /** Of the embeddings, which ELECTRA and ALBERT widen to that of the layers. */
    embedded: usual.embedded === undefined ? hidden : size("embedding_size", 1, 1e6, usual.embedded),
    layers: size("num_hidden_layers", 1, 1000),
    heads: heads("num_attention_heads", hidden),
    intermediate: size("intermediate_size"),
    vocabulary: size("vocab_size"),
    positions: size("max_position_embeddings"),
    types: size("type_vocab_size"),
    epsilon: positive("layer_norm_eps", 1e-12),
    activation: only("hidden_act", usual.activation ?? "gelu", ...activationNames),
  };
}
export type BertConfig = ReturnType<typeof parseBert>;

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

function bertEmbeddings(
  config: BertConfig,
  { firstPosition, projection }: Pick<BertForm, "firstPosition" | "projection">,
): Block<State> {
  const { embedded, hidden, epsilon } = config;
  return {
    id: "embeddings",
    shapes: new Map([
      [bertTables.words, [config.vocabulary, embedded]],
      [bertTables.positions, [config.positions, embedded]],
      [bertTables.types, [config.types, embedded]],
      ...normShapes("embeddings.LayerNorm", embedded),
      ...(projection ? denseShapes(projection, hidden, embedded) : []),
    ]),
    run(w, state) {
      const lookups = bertLookups(state.batch, firstPosition);
      const typed = plus(lookUpRows(w, lookups.words), lookUpRows(w, lookups.types));
      const positioned = plus(typed, lookUpRows(w, lookups.positions));
      const x = norm(w, "embeddings.LayerNorm", positioned, epsilon);
      return { ...state, x: projection ? dense(w, x, projection) : x };
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
export const pooler = (module: string, hidden: number): Block<State> => ({
  id: "pooler",
  shapes: new Map(denseShapes(module, hidden, hidden)),
  run: (w, state) => ({ ...state, x: tanh(dense(w, headInputs(state), module)) }),
});
const poolerName = "pooler.dense";

/** What BERT and its kin do in their own ways. */
interface BertForm {
  readonly padId: number;
  /** The embedding of a row's first token's position. */
  readonly firstPosition: number;
  /** What widens embeddings. */
  readonly projection?: string | undefined;
  readonly names: PostNormNames;
  /** Of each layer, the module that it is. */
  readonly layers: readonly string[];
  /** The block behind the layers. */
  readonly last: Block<State>;
}

export function bertModel(config: BertConfig, form: BertForm): Model {
  const { hidden, heads, vocabulary, intermediate, epsilon, activation } = config;
  const { padId, firstPosition, names, last } = form;
  const layer = { width: hidden, inner: intermediate, heads, epsilon, activation, names };
  return pipeline<State>({
    blocks: [
      bertEmbeddings(config, form),
      ...form.layers.map((module, i) => postNormLayer(module, layer, `encoder.layer.${i}`)),
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

/** BERT's layers, each with weights of its own. */
const ownLayers = ({ layers }: BertConfig) => ({
  names: bertLayer,
  layers: Array.from({ length: layers }, (_, i) => `encoder.layer.${i}`),
});

export const padIdOf = (json: Config, type: string, { vocabulary }: BertConfig, fallback: number): number =>
  configReader(json, type).size("pad_token_id", 0, vocabulary - 1, fallback);

function buildBert(json: Config, { withoutPooler = false }: BuildOptions = {}): Model {
  const config = parseBert(json, "bert");
  const padId = padIdOf(json, "bert", config, 0);
  const last = withoutPooler ? rowOutputs<State>() : pooler(poolerName, config.hidden);
  return bertModel(config, { ...ownLayers(config), padId, firstPosition: 0, last });
}

function buildRoberta(json: Config): Model {
  const config = parseBert(json, "roberta");
  const padId = padIdOf(json, "roberta", config, 1);
  return bertModel(config, { ...ownLayers(config), padId, firstPosition: padId + 1, last: rowOutputs() });
}

function buildElectra(json: Config): Model {
  const config = parseBert(json, "electra", { embedded: configReader(json, "electra").size("hidden_size") });
  const padId = padIdOf(json, "electra", config, 0);
  const projection = config.embedded === config.hidden ? undefined : "embeddings_project";
  return bertModel(config, { ...ownLayers(config), padId, firstPosition: 0, projection, last: rowOutputs() });
}

export const inModernSpelling = (name: string): string =>
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
