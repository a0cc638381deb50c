import { endsOf, unembeddingName } from "./decoder.js";
import type { SelfAttentionState } from "./kv-cache.js";
import { lookUpRows, rms } from "./layers.js";
import { multiplied } from "./ops.js";
import { decoderBuckets, encoderBuckets } from "./relative-positions.js";
import { reused, scoreBlock, seq2seqModel, type Seq2SeqState } from "./seq2seq.js";
import { parseT5, type T5Config } from "./t5-config.js";
import { t5DecoderLayer, t5EncoderLayer, type T5Tower } from "./t5-layers.js";
import type { Block, BuildOptions, Config, Model, ModelFamily, SegmentBias } from "./types.js";

type T5State = Seq2SeqState<T5Tower>;

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
const scoreTargets = ({ vocabulary, width, epsilon, scales }: T5Config, unembedding: string) =>
  scoreBlock<T5Tower>(
    {
      id: decoderNorm,
      shapes: new Map([[`${decoderNorm}.weight`, [width]]]),
      normalise(w, y) {
        const normal = rms(w, decoderNorm, y, epsilon);
        return scales ? multiplied(normal, width ** -0.5) : normal;
      },
    },
    [unembedding, [vocabulary, width]],
  );

function buildT5(json: Config, { has }: BuildOptions = {}): Model {
  const config = parseT5(json, has);
  const { width, vocabulary, layers, decoderLayers, isTied, heads, padId, start } = config;
  const unembedding = unembeddingName(isTied, t5Words);
  return seq2seqModel<T5Tower>({
    encoder: [embedTexts(config), ...Array.from({ length: layers }, (_, i) => t5EncoderLayer(config, i))],
    decoder: [
      beginDecoder(config),
      ...Array.from({ length: decoderLayers }, (_, i) => t5DecoderLayer(config, i)),
      scoreTargets(config, unembedding),
    ],
    width,
    heads,
    vocabulary,
    maxLength: 1e6,
    padId,
    start,
    ends: endsOf(json, vocabulary, 1),
    // A table that the output layer needs whole is no table.
    tables: [t5Words].filter((name) => name !== unembedding),
    lookups: (batch) => [
      { name: t5Words, ids: batch.encoder.ids },
      { name: t5Words, ids: batch.decoder.ids },
    ],
    encoderSide: (bias) => ({ bias, buckets: encoderBuckets(bias, config) }),
    decoderSide: (own: SelfAttentionState, keys: readonly SegmentBias[]) => ({
      ...own,
      buckets: decoderBuckets(own.bias, keys, config),
    }),
  });
}

/** T5 (Raffel et al. 2020), v1.0 and v1.1, T0, Flan-T5: scores of targets given a text. */
export const t5: ModelFamily = {
  types: { t5: { title: "T5" } },
  outputLayers: ["score"],
  canonical: (name) => name,
  build: buildT5,
};
