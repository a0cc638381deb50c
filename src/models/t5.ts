import { scalar, tensor1d, type Tensor, type Tensor2D } from "@tensorflow/tfjs-core";
import { activations, type ActivationName } from "./activations.js";
import { attend, attentionBias, causalBiases, type RelativeBias } from "./attention.js";
import { readConfig } from "./config.js";
import { dense, denseShapes, parametersOf, rms } from "./dense.js";
import { endsOf } from "./decoder.js";
import { layout } from "./layout.js";
import { attendBack } from "./kv-cache.js";
import { lookup, multiplied, plus, rows, times } from "./ops.js";
import { placesOf, score, tokenScores, unembeddingOf } from "./output-layer.js";
import type {
  Block,
  BuildOptions,
  Config,
  KvCache,
  Model,
  ModelFamily,
  SegmentBias,
  TokenBatch,
  TokenRow,
  Weights,
} from "./types.js";

/** Encoder rows (each text once, however many targets it has) and decoder rows. */
interface T5Batch {
  readonly encoder: TokenBatch;
  readonly decoder: TokenBatch;
  /** Of each of the decoder's rows, in their own order, the encoder row that it looks at. */
  readonly sources: Int32Array;
}

interface T5State {
  readonly batch: T5Batch;
  /** [encoder tokens, width]. */
  readonly x: Tensor;
  /** [decoder tokens, width], nothing before the decoder; [rows, 1] at the end. */
  readonly y: Tensor | undefined;
  readonly encoder: Side;
  readonly decoder: Side;
  /** Which encoder tokens the decoder's rows look at. */
  readonly looked: Looked;
  readonly cache?: KvCache | undefined;
}

/** What all layers of a side share: its segments, and the buckets of their relative positions. */
interface Side {
  readonly bias: readonly SegmentBias[];
  readonly buckets: readonly Int32Array[];
  /** Of a decoder that says a text. */
  readonly cache?: KvCache | undefined;
  readonly keys?: readonly SegmentBias[] | undefined;
}

interface Looked {
  readonly ids: Int32Array;
  readonly keys: readonly SegmentBias[];
}

function parse(json: Config, has?: (name: string) => boolean) {
  const { size, positive, only, flag } = readConfig(json, "t5");
  const form = (json["feed_forward_proj"] ?? "relu") as string;
  const gated = form.startsWith("gated-");
  const name = (form === "gated-gelu" ? "gelu_new" : form.replace(/^gated-/, "")) as ActivationName;
  if (!(name in activations)) only("feed_forward_proj", "relu", "gated-gelu");
  const layers = size("num_layers", 1, 1000);
  return {
    width: size("d_model"),
    depth: size("d_kv"),
    heads: size("num_heads"),
    inner: size("d_ff"),
    layers,
    decoderLayers: size("num_decoder_layers", 1, 1000, layers),
    vocabulary: size("vocab_size"),
    buckets: size("relative_attention_num_buckets", 4, 1e4, 32),
    distance: size("relative_attention_max_distance", 2, 1e6, 128),
    epsilon: positive("layer_norm_epsilon", 1e-6),
    padId: size("pad_token_id", 0, 1e6, 0),
    start: size("decoder_start_token_id", 0, 1e6, 0),
    gated,
    activation: activations[name],
    // Whether the output layer is the embedding: transformers 5 writes that it is, whatever the file holds.
    tied: has ? !has("lm_head.weight") : flag("tie_word_embeddings", true),
    scales: flag("scale_decoder_outputs", flag("tie_word_embeddings", true)),
  };
}
type T5Config = ReturnType<typeof parse>;

/** The bucket of a key's place minus the query's (T5's relative positions). */
function bucketOf(offset: number, buckets: number, most: number, both: boolean): number {
  const count = both ? buckets / 2 : buckets;
  const side = both && offset > 0 ? count : 0;
  const far = both ? Math.abs(offset) : Math.max(0, -offset);
  const exact = Math.floor(count / 2);
  if (far < exact) return side + far;
  // In float32, as PyTorch has it: at a bucket's edge it decides.
  const log = Math.fround(
    Math.fround(Math.fround(Math.log(far / exact)) / Math.fround(Math.log(most / exact))) * (count - exact),
  );
  return side + Math.min(count - 1, exact + Math.trunc(log));
}

/** Of every pair of places; of queries that stand at the end of their keys. */
const bucketsOf = (
  queries: readonly SegmentBias[],
  { buckets, distance }: T5Config,
  both: boolean,
  keys = queries,
): Int32Array[] =>
  queries.map(({ length }, s) => {
    const seen = keys[s]!.length;
    return Int32Array.from({ length: length * seen }, (_, i) =>
      bucketOf((i % seen) - Math.floor(i / seen) - (seen - length), buckets, distance, both),
    );
  });

function encoderSide({ segments }: TokenBatch, config: T5Config): Side {
  const bias = segments.map(attentionBias);
  return { bias, buckets: bucketsOf(bias, config, true) };
}

/** The encoder of a text that has been read: none of its blocks runs again. */
const unread: Side = { bias: [], buckets: [] };

const bare = { bare: true };

/** Self-attention of either side, norm in front. */
function selfAttention(config: T5Config, tower: "encoder" | "decoder", index: number) {
  const { width, depth, heads, buckets, epsilon } = config;
  const at = `${tower}.block.${index}.layer.0`;
  const [q, k, v, o] = ["q", "k", "v", "o"].map((name) => `${at}.SelfAttention.${name}`) as [
    string,
    string,
    string,
    string,
  ];
  const table = `${tower}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`;
  const shapes: [string, number[]][] = [
    [`${at}.layer_norm.weight`, [width]],
    ...[q, k, v].flatMap((module) => denseShapes(module, heads * depth, width, bare)),
    ...denseShapes(o, width, heads * depth, bare),
    [table, [buckets, heads]],
  ];
  const run = (w: Weights, x: Tensor, side: Side): Tensor2D => {
    const normal = rms(w, `${at}.layer_norm`, x, epsilon);
    const relative: RelativeBias = { table: w(table) as Tensor2D, buckets: side.buckets };
    const seen = attendBack(
      at,
      [dense(w, normal, q, bare), dense(w, normal, k, bare), dense(w, normal, v, bare)],
      side,
      { heads, scale: 1, relative },
    );
    return plus(x as Tensor2D, dense(w, seen, o, bare));
  };
  return { shapes, run };
}

/**
 * The decoder's look at the encoder: keys and values are made once an encoder token, and handed out to
 * the rows that look at it.
 */
function crossAttention({ width, depth, heads, epsilon }: T5Config, index: number) {
  const at = `decoder.block.${index}.layer.1`;
  const [q, k, v, o] = ["q", "k", "v", "o"].map((name) => `${at}.EncDecAttention.${name}`) as [
    string,
    string,
    string,
    string,
  ];
  const shapes: [string, number[]][] = [
    [`${at}.layer_norm.weight`, [width]],
    ...[q, k, v].flatMap((module) => denseShapes(module, heads * depth, width, bare)),
    ...denseShapes(o, width, heads * depth, bare),
  ];
  const run = (w: Weights, y: Tensor, { x, decoder, cache, looked: { ids, keys } }: T5State): Tensor2D => {
    const places = () => tensor1d(ids, "int32");
    const queries = decoder.bias.map(({ size, length }): SegmentBias => ({ size, length, bias: undefined }));
    const made = (module: string) =>
      rows(cache?.once(module, () => dense(w, x, module, bare)) ?? dense(w, x, module, bare), places());
    const [key, value] = [made(k), made(v)];
    const seen = attend(
      dense(w, rms(w, `${at}.layer_norm`, y, epsilon), q, bare),
      key,
      value,
      { queries, keys },
      { heads, scale: 1 },
    );
    return plus(y as Tensor2D, dense(w, seen, o, bare));
  };
  return { shapes, run };
}

/**
 * Which encoder tokens every decoder segment looks at, padded to its longest text, and the bias that
 * hides the padding.
 */
function lookedAt({ encoder, decoder, sources }: T5Batch): Looked {
  const ids: number[] = [];
  const keys: SegmentBias[] = [];
  let row = 0;
  for (const { size } of decoder.segments) {
    const mine = decoder.order.slice(row, row + size).map((r) => sources[r]!);
    row += size;
    const lengths = mine.map((source) => encoder.rows[source]!.ids.length);
    const length = Math.max(...lengths);
    const mask = lengths.some((n) => n < length) ? new Uint8Array(size * length) : undefined;
    for (const [r, source] of mine.entries()) {
      for (let i = 0; i < length; i++) ids.push(i < lengths[r]! ? encoder.first[source]! + i : 0);
      mask?.fill(1, r * length, r * length + lengths[r]!);
    }
    keys.push(attentionBias({ size, length, mask }));
  }
  return { ids: Int32Array.from(ids), keys };
}

function feedForward({ width, inner, gated, activation, epsilon }: T5Config, at: string) {
  const [first, gate, out] = gated
    ? [`${at}.DenseReluDense.wi_1`, `${at}.DenseReluDense.wi_0`, `${at}.DenseReluDense.wo`]
    : [`${at}.DenseReluDense.wi`, undefined, `${at}.DenseReluDense.wo`];
  const shapes: [string, number[]][] = [
    [`${at}.layer_norm.weight`, [width]],
    ...(gate === undefined ? [] : denseShapes(gate, inner, width, bare)),
    ...denseShapes(first, inner, width, bare),
    ...denseShapes(out, width, inner, bare),
  ];
  const run = (w: Weights, x: Tensor): Tensor2D => {
    const normal = rms(w, `${at}.layer_norm`, x, epsilon);
    const up = dense(w, normal, first, bare);
    return plus(
      x as Tensor2D,
      dense(
        w,
        gate === undefined ? activation(up) : times(activation(dense(w, normal, gate, bare)), up),
        out,
        bare,
      ),
    );
  };
  return { shapes, run };
}

function encoderLayer(config: T5Config, index: number): Block<T5State> {
  const self = selfAttention(config, "encoder", index);
  const forward = feedForward(config, `encoder.block.${index}.layer.1`);
  return {
    id: `encoder.block.${index}`,
    shapes: new Map([...self.shapes, ...forward.shapes]),
    run: (w, state) => ({ ...state, x: forward.run(w, self.run(w, state.x, state.encoder)) }),
  };
}

function decoderLayer(config: T5Config, index: number): Block<T5State> {
  const self = selfAttention(config, "decoder", index);
  const cross = crossAttention(config, index);
  const forward = feedForward(config, `decoder.block.${index}.layer.2`);
  return {
    id: `decoder.block.${index}`,
    shapes: new Map([...self.shapes, ...cross.shapes, ...forward.shapes]),
    run: (w, state) => ({
      ...state,
      y: forward.run(w, cross.run(w, self.run(w, state.y!, state.decoder), state)),
    }),
  };
}

const shared = "shared.weight";

/** Lays texts out once each, and their targets behind the start token. */
function prepare(given: readonly TokenRow[], { padId, start, width }: T5Config): T5Batch {
  const texts = new Map<string, number>();
  const unique: TokenRow[] = [];
  const sources = Int32Array.from(given, (row) => {
    const key = row.ids.join();
    const found = texts.get(key);
    if (found !== undefined) return found;
    texts.set(key, unique.length);
    return unique.push(row) - 1;
  });
  const answers = given.map(({ targets = [], mean }, row) => ({
    ids: [start, ...targets.slice(0, -1)],
    types: [],
    scored: [{ row, first: 0, second: 1, targets, mean }],
  }));
  return { encoder: layout(unique, padId, width), decoder: layout(answers, padId, width), sources };
}

function build(json: Config, { has }: BuildOptions = {}): Model {
  const config = parse(json, has);
  const { width, vocabulary, layers, decoderLayers, epsilon, tied, scales, heads } = config;
  const unembedding = tied ? shared : "lm_head.weight";
  const enter: Block<T5State> = {
    id: "encoder.embed_tokens",
    shapes: new Map([[shared, [vocabulary, width]]]),
    run: (w, state) => ({ ...state, x: lookup(w, shared, state.batch.encoder.ids) }),
  };
  const turn: Block<T5State> = {
    id: "encoder.final_layer_norm",
    shapes: new Map([
      ["encoder.final_layer_norm.weight", [width]],
      [shared, [vocabulary, width]],
    ]),
    run: (w, state) => ({
      ...state,
      x:
        state.cache?.once("encoder", () => rms(w, "encoder.final_layer_norm", state.x, epsilon)) ??
        rms(w, "encoder.final_layer_norm", state.x, epsilon),
      y: lookup(w, shared, state.batch.decoder.ids),
    }),
  };
  const leave: Block<T5State> = {
    id: "decoder.final_layer_norm",
    shapes: new Map([
      ["decoder.final_layer_norm.weight", [width]],
      [unembedding, [vocabulary, width]],
    ]),
    run(w, state) {
      const out = unembeddingOf(w, unembedding);
      const normal = (at: Int32Array) => {
        const y = rms(
          w,
          "decoder.final_layer_norm",
          rows(state.y as Tensor2D, tensor1d(at, "int32")),
          epsilon,
        );
        return scales ? multiplied(y, width ** -0.5) : y;
      };
      if (state.cache) return { ...state, y: tokenScores(normal(state.batch.decoder.first), out) };
      const places = placesOf(state.batch.decoder);
      return { ...state, y: score(normal(places.at), out, places) };
    },
  };
  const blocks = [
    enter,
    ...Array.from({ length: layers }, (_, i) => encoderLayer(config, i)),
    turn,
    ...Array.from({ length: decoderLayers }, (_, i) => decoderLayer(config, i)),
    leave,
  ];
  const model: Model<T5State, T5Batch> = {
    blocks,
    parameters: parametersOf(blocks),
    width,
    heads,
    vocabulary,
    maxLength: 1e6,
    scores: "encoder-decoder",
    // A table that the output layer needs whole is no table.
    tables: new Set(tied ? [] : [shared]),
    prepare: (given) => prepare(given, config),
    lookups: ({ encoder, decoder }) => [
      { name: shared, ids: encoder.ids },
      { name: shared, ids: decoder.ids },
    ],
    generation: {
      from: blocks.indexOf(turn),
      ends: endsOf(json, 1),
      side: ({ decoder }) => decoder,
      follow: (batch, said) => ({
        ...batch,
        decoder: layout(
          said.map((id) => ({ ids: [id], types: [] })),
          config.padId,
          width,
        ),
      }),
    },
    start(batch, cache) {
      const keys = cache?.keys();
      const causal = causalBiases(batch.decoder);
      return {
        batch,
        cache,
        x: scalar(0),
        y: undefined,
        looked: lookedAt(batch),
        encoder: keys ? unread : encoderSide(batch.encoder, config),
        decoder: { bias: causal, keys, cache, buckets: bucketsOf(causal, config, false, keys) },
      };
    },
    carried: ({ x, y }) => (y ? [x, y] : [x]),
    carry: (start, [x, y]) => ({ ...start, x: x!, y }),
    features: ({ y }) => y as Tensor2D,
  };
  return model;
}

/** T5 (Raffel et al. 2020), v1.0 and v1.1, T0, Flan-T5: scores of targets given a text. */
export const t5: ModelFamily = {
  types: ["t5"],
  outputLayers: ["score"],
  canonical: (name) => name,
  build,
};
