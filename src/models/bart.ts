import type { Tensor2D } from "@tensorflow/tfjs-core";
import { attend } from "./attention.js";
import { configReader } from "./config.js";
import { endsOf } from "./decoder.js";
import { shifted } from "./encoder.js";
import { attendBack, type SelfAttentionState } from "./kv-cache.js";
import {
  activationNames,
  activations,
  dense,
  denseShapes,
  lookUpRows,
  norm,
  normShapes,
  type ActivationName,
} from "./layers.js";
import { multiplied, plus } from "./ops.js";
import { decoded, lookAtEncoder, scoreBlock, seq2seqModel, type Seq2SeqState } from "./seq2seq.js";
import type { Block, Config, Lookup, Model, ModelFamily, TokenBatch, Weights } from "./types.js";

type Tower = "encoder" | "decoder";

/** The embedding of both towers, and the output layer. */
const words = "shared.weight";
/** The embedding of a text's first token's position. */
const firstPosition = 2;
/** transformers has it fixed. */
const epsilon = 1e-5;

function parseTower(json: Config, tower: Tower) {
  const { size, heads } = configReader(json, "bart");
  return {
    layers: size(`${tower}_layers`, 1, 1000),
    heads: heads(`${tower}_attention_heads`, size("d_model")),
    inner: size(`${tower}_ffn_dim`),
  };
}

function parseBart(json: Config) {
  const { size, flag, only } = configReader(json, "bart");
  const width = size("d_model");
  const vocabulary = size("vocab_size");
  only("tie_word_embeddings", true);
  return {
    width,
    vocabulary,
    positions: size("max_position_embeddings"),
    padId: size("pad_token_id", 0, vocabulary - 1, 1),
    start: size("decoder_start_token_id", 0, vocabulary - 1, 2),
    scale: flag("scale_embedding", false) ? Math.fround(Math.sqrt(width)) : 1,
    activation: only<ActivationName>("activation_function", "gelu", ...activationNames),
    encoder: parseTower(json, "encoder"),
    decoder: parseTower(json, "decoder"),
  };
}
type BartConfig = ReturnType<typeof parseBart>;

const positionsOf = (tower: Tower): string => `${tower}.embed_positions.weight`;

/** Which rows of a tower's tables a batch looks up. */
const towerLookups = (tower: Tower, batch: TokenBatch): [words: Lookup, positions: Lookup] => [
  { name: words, ids: batch.ids },
  { name: positionsOf(tower), ids: shifted(batch.positions, firstPosition) },
];

/** What tokens are, where they stand, and a norm. */
function embedding(config: BartConfig, tower: Tower) {
  const { width, vocabulary, positions, scale } = config;
  const normed = `${tower}.layernorm_embedding`;
  return {
    id: normed,
    shapes: new Map([
      [words, [vocabulary, width]],
      [positionsOf(tower), [positions + firstPosition, width]],
      ...normShapes(normed, width),
    ]),
    run(w: Weights, batch: TokenBatch): Tensor2D {
      const [ofWords, ofPositions] = towerLookups(tower, batch);
      const found = lookUpRows(w, ofWords);
      const x = plus(scale === 1 ? found : multiplied(found, scale), lookUpRows(w, ofPositions));
      return norm(w, normed, x, epsilon);
    },
  };
}

/** What stands in a layer, each with a norm behind it and what it is added to. */
function sublayers({ width, activation }: BartConfig, tower: Tower, index: number) {
  const layer = `${tower}.layers.${index}`;
  const module = (name: string) => `${layer}.${name}`;
  const attentionOf = (kind: string) => {
    const part = (name: string) => module(`${kind}.${name}`);
    const [q, k, v, out] = [part("q_proj"), part("k_proj"), part("v_proj"), part("out_proj")];
    const normed = module(`${kind}_layer_norm`);
    return {
      q,
      k,
      v,
      shapes: [
        ...[q, k, v, out].flatMap((name) => denseShapes(name, width, width)),
        ...normShapes(normed, width),
      ],
      /** With what attention made. */
      added: (w: Weights, x: Tensor2D, attended: Tensor2D): Tensor2D =>
        norm(w, normed, plus(x, dense(w, attended, out)), epsilon),
    };
  };
  const forward = (inner: number) => {
    const [up, down, normed] = [module("fc1"), module("fc2"), module("final_layer_norm")];
    return {
      shapes: [
        ...denseShapes(up, inner, width),
        ...denseShapes(down, width, inner),
        ...normShapes(normed, width),
      ],
      run: (w: Weights, x: Tensor2D): Tensor2D =>
        norm(w, normed, plus(x, dense(w, activations[activation](dense(w, x, up)), down)), epsilon),
    };
  };
  return { layer, attentionOf, forward };
}

function encoderLayer(config: BartConfig, index: number): Block<Seq2SeqState> {
  const { heads, inner } = config.encoder;
  const { layer, attentionOf, forward } = sublayers(config, "encoder", index);
  const [self, feed] = [attentionOf("self_attn"), forward(inner)];
  const options = { heads, scale: Math.sqrt(heads / config.width) };
  return {
    id: layer,
    shapes: new Map([...self.shapes, ...feed.shapes]),
    run(w, state) {
      const { x, encoder } = state;
      const projected = [dense(w, x, self.q), dense(w, x, self.k), dense(w, x, self.v)] as const;
      const attended = attend(projected, { queries: encoder.bias, keys: encoder.bias }, options);
      return { ...state, x: feed.run(w, self.added(w, x, attended)) };
    },
  };
}

function decoderLayer(config: BartConfig, index: number): Block<Seq2SeqState> {
  const { heads, inner } = config.decoder;
  const { layer, attentionOf, forward } = sublayers(config, "decoder", index);
  const [self, cross, feed] = [attentionOf("self_attn"), attentionOf("encoder_attn"), forward(inner)];
  const options = { heads, scale: Math.sqrt(heads / config.width) };
  return {
    id: layer,
    shapes: new Map([...self.shapes, ...cross.shapes, ...feed.shapes]),
    run(w, state) {
      const y = decoded(state);
      const projected = [dense(w, y, self.q), dense(w, y, self.k), dense(w, y, self.v)] as const;
      const own = self.added(w, y, attendBack(layer, projected, state.decoder, options));
      const look = { query: dense(w, own, cross.q), k: cross.k, v: cross.v };
      const looked = cross.added(w, own, lookAtEncoder(w, look, state, options));
      return { ...state, y: feed.run(w, looked) };
    },
  };
}

function buildBart(json: Config): Model {
  const config = parseBart(json);
  const { width, vocabulary, positions, padId, start } = config;
  const [texts, answers] = [embedding(config, "encoder"), embedding(config, "decoder")];
  return seq2seqModel<SelfAttentionState>({
    encoder: [
      { ...texts, run: (w, state) => ({ ...state, x: texts.run(w, state.batch.encoder) }) },
      ...Array.from({ length: config.encoder.layers }, (_, i) => encoderLayer(config, i)),
    ],
    decoder: [
      { ...answers, run: (w, state) => ({ ...state, y: answers.run(w, state.batch.decoder) }) },
      ...Array.from({ length: config.decoder.layers }, (_, i) => decoderLayer(config, i)),
      scoreBlock({ id: "output", shapes: new Map(), normalise: (_, y) => y }, [words, [vocabulary, width]]),
    ],
    width,
    heads: config.encoder.heads,
    vocabulary,
    maxLength: positions,
    padId,
    start,
    ends: endsOf(json, vocabulary, 2),
    // The embedding is the output layer too.
    tables: [positionsOf("encoder"), positionsOf("decoder")],
    lookups: ({ encoder, decoder }) => [
      ...towerLookups("encoder", encoder),
      ...towerLookups("decoder", decoder),
    ],
    encoderSide: (bias) => ({ bias }),
    decoderSide: (own) => own,
  });
}

/** BART (Lewis et al. 2020): scores of targets given a text. */
export const bart: ModelFamily = {
  types: { bart: { title: "BART" } },
  outputLayers: ["score"],
  zeros: ["final_logits_bias"],
  canonical: (name) => name.replace(/^model\./, ""),
  build: buildBart,
};
