import { tensor1d } from "@tensorflow/tfjs-core";
import { endsOf, unembeddingName } from "./decoder.js";
import { rms, shapesOfBlocks, asMatrix, lookUpRows } from "./layers.js";
import { layout } from "./layout.js";
import { multiplied, rows } from "./ops.js";
import { predictionsOf, scoredTargets, tokenScores, unembeddingOf } from "./output-layer.js";
import { decoded, prepareT5, reused, startT5, type T5Batch, type T5State } from "./t5-batch.js";
import { parseT5, type T5Config } from "./t5-config.js";
import { t5DecoderLayer, t5EncoderLayer } from "./t5-layers.js";
import type { Block, BuildOptions, Config, Model, ModelFamily, Weights } from "./types.js";

/** The embedding of both towers. */
const t5Words = "shared.weight";
const encoderNorm = "encoder.final_layer_norm";
const decoderNorm = "decoder.final_layer_norm";

const embedTexts = ({ vocabulary, width }: T5Config): Block<T5State> => ({
  id: "encoder.embed_tokens",
  shapes: new Map([[t5Words, [vocabulary, width]]]),
  run: (w, state) => ({ ...state, x: lookUpRows(w, { name: t5Words, ids: state.batch.encoder.ids }) }),
});

/** The encoder's last norm, and the decoder's first tokens. */
const beginDecoder = ({ vocabulary, width, epsilon }: T5Config): Block<T5State> => ({
  id: encoderNorm,
  shapes: new Map([
    [`${encoderNorm}.weight`, [width]],
    [t5Words, [vocabulary, width]],
  ]),
  run: (w, state) => ({
    ...state,
    x: reused(state.cache, "encoder", () => rms(w, encoderNorm, state.x, epsilon)),
    y: lookUpRows(w, { name: t5Words, ids: state.batch.decoder.ids }),
  }),
});

/** The decoder's last norm, and the scores of targets. */
function scoreTargets(config: T5Config, unembedding: string): Block<T5State> {
  const { vocabulary, width, epsilon, scales } = config;
  const normalised = (w: Weights, state: T5State, tokens: Int32Array) => {
    const y = rms(w, decoderNorm, rows(decoded(state), tensor1d(tokens, "int32")), epsilon);
    return scales ? multiplied(y, width ** -0.5) : y;
  };
  return {
    id: decoderNorm,
    shapes: new Map([
      [`${decoderNorm}.weight`, [width]],
      [unembedding, [vocabulary, width]],
    ]),
    run(w, state) {
      const out = unembeddingOf(w, unembedding);
      const { decoder } = state.batch;
      if (state.cache) return { ...state, y: tokenScores(normalised(w, state, decoder.first), out) };
      const predictions = predictionsOf(decoder);
      return { ...state, y: scoredTargets(normalised(w, state, predictions.tokens), out, predictions) };
    },
  };
}

function buildT5(json: Config, { has }: BuildOptions = {}): Model {
  const config = parseT5(json, has);
  const { width, vocabulary, layers, decoderLayers, isTied, heads, padId } = config;
  const unembedding = unembeddingName(isTied, t5Words);
  const encoder = [
    embedTexts(config),
    ...Array.from({ length: layers }, (_, i) => t5EncoderLayer(config, i)),
  ];
  const decoder = [
    beginDecoder(config),
    ...Array.from({ length: decoderLayers }, (_, i) => t5DecoderLayer(config, i)),
    scoreTargets(config, unembedding),
  ];
  const blocks = [...encoder, ...decoder];
  const model: Model<T5State, T5Batch> = {
    blocks,
    parameters: shapesOfBlocks(blocks),
    width,
    heads,
    vocabulary,
    maxLength: 1e6,
    scores: "encoder-decoder",
    // A table that the output layer needs whole is no table.
    tables: new Set([t5Words].filter((name) => name !== unembedding)),
    prepare: (given) => prepareT5(given, config),
    lookups: (batch) => [
      { name: t5Words, ids: batch.encoder.ids },
      { name: t5Words, ids: batch.decoder.ids },
    ],
    generation: {
      firstBlock: encoder.length,
      ends: endsOf(json, vocabulary, 1),
      cachedRows: (batch) => batch.decoder,
      nextBatch: (batch, tokens) => {
        const next = tokens.map((id) => ({ ids: [id], types: [] }));
        return { ...batch, decoder: layout(next, padId, width) };
      },
    },
    start: (batch, cache) => startT5(batch, config, cache),
    carried: ({ x, y }) => [x, y].filter((t) => t !== undefined),
    carry: (start, [x, y]) => ({
      ...start,
      x: asMatrix(x, "the encoder's activations"),
      y: y && asMatrix(y, "the decoder's activations"),
    }),
    features: decoded,
  };
  return model;
}

/** T5 (Raffel et al. 2020), v1.0 and v1.1, T0, Flan-T5: scores of targets given a text. */
export const t5: ModelFamily = {
  types: { t5: { title: "T5" } },
  outputLayers: ["score"],
  canonical: (name) => name,
  build: buildT5,
};
