/** Encoders with a decoder: what they read, what their blocks hand on, how a decoder looks at an encoder. */
import { tensor1d, type Tensor2D } from "@tensorflow/tfjs-core";
import { at, i32 } from "../at.js";
import { attend, type AttendOptions } from "./attention.js";
import { noActivations } from "./encoder.js";
import type { SelfAttentionState } from "./kv-cache.js";
import { asMatrix, dense, shapesOfBlocks, type DenseOptions } from "./layers.js";
import { attentionBias, causalBiases, layout, rowsBySegment, withoutBias } from "./layout.js";
import { rows } from "./ops.js";
import { predictionsOf, scoredTargets, tokenScores, unembeddingOf } from "./output-layer.js";
import type { Block, KvCache, Lookup, Model, SegmentBias, TokenBatch, TokenRow, Weights } from "./types.js";

/** Encoder rows (each text once, however many targets it has) and decoder rows. */
export interface Seq2SeqBatch {
  readonly encoder: TokenBatch;
  readonly decoder: TokenBatch;
  /** Of each of the decoder's rows, in their own order, the encoder row that it looks at. */
  readonly sources: readonly number[];
}

/** Which of the encoder's tokens a decoder looks at, and how they lie as keys: a segment of queries each. */
interface CrossKeys {
  readonly ids: Int32Array;
  readonly segments: readonly SegmentBias[];
}

/** @template Side what all layers of an encoder, or of a decoder, share */
export interface Seq2SeqState<Side extends SelfAttentionState = SelfAttentionState> {
  readonly batch: Seq2SeqBatch;
  /** [encoder tokens, width]. */
  readonly x: Tensor2D;
  /** [decoder tokens, width], nothing before the decoder; [rows, 1] at the end. */
  readonly y: Tensor2D | undefined;
  readonly encoder: Side;
  readonly decoder: Side;
  readonly crossKeys: CrossKeys;
  readonly cache?: KvCache | undefined;
}

/** What a family says of itself beside its blocks. */
export interface Seq2Seq<Side extends SelfAttentionState> {
  readonly encoder: readonly Block<Seq2SeqState<Side>>[];
  readonly decoder: readonly Block<Seq2SeqState<Side>>[];
  readonly width: number;
  readonly heads: number;
  readonly vocabulary: number;
  readonly maxLength: number;
  readonly padId: number;
  /** The token that a decoder reads first. */
  readonly start: number;
  /** Tokens that end a text. */
  readonly ends: readonly number[];
  readonly tables: readonly string[];
  lookups(batch: Seq2SeqBatch): readonly Lookup[];
  /** What layers share, of the encoder's segments, and of the decoder's with those of the keys that it looks at. */
  encoderSide(bias: readonly SegmentBias[]): Side;
  decoderSide(own: SelfAttentionState, keys: readonly SegmentBias[]): Side;
}

/** Lays texts out once each, and their targets behind the start token. */
function prepare<Side extends SelfAttentionState>(
  given: readonly TokenRow[],
  { padId, start, width }: Pick<Seq2Seq<Side>, "padId" | "start" | "width">,
): Seq2SeqBatch {
  const texts = new Map<string, number>();
  const unique: TokenRow[] = [];
  const sources = given.map((row) => {
    const key = row.ids.join();
    const found = texts.get(key);
    if (found !== undefined) return found;
    texts.set(key, unique.length);
    return unique.push(row) - 1;
  });
  const answers = given.map(({ targets = [], mean, lesson }, row) => ({
    ids: [start, ...targets.slice(0, -1)],
    types: [],
    scored: [{ row, first: 0, second: 1, targets, mean, lesson }],
  }));
  return { encoder: layout(unique, padId, width), decoder: layout(answers, padId, width), sources };
}

/**
 * Which encoder tokens every decoder segment looks at, padded to its longest text, and the bias that
 * hides the padding.
 */
function crossKeysOf({ encoder, decoder, sources }: Seq2SeqBatch): CrossKeys {
  const ids: number[] = [];
  const segments = rowsBySegment(decoder, sources).map(({ segment, rows: own }) => {
    const { size } = segment;
    const lengths = own.map((source) => at(encoder.rows, source).ids.length);
    const length = Math.max(...lengths);
    const mask = lengths.some((n) => n < length) ? new Uint8Array(size * length) : undefined;
    for (const [r, source] of own.entries()) {
      const [first, count] = [i32(encoder.first, source), at(lengths, r)];
      for (let i = 0; i < length; i++) ids.push(i < count ? first + i : 0);
      mask?.fill(1, r * length, r * length + count);
    }
    return attentionBias({ size, length, mask });
  });
  return { ids: Int32Array.from(ids), segments };
}

/** The decoder's activations. @throws TypeError before it has read anything */
export function decoded({ y }: Pick<Seq2SeqState, "y">): Tensor2D {
  if (!y) throw new TypeError("the decoder has not read anything yet");
  return y;
}

/** What the first pass makes of the encoder is the same for every token that follows. */
export function reused(cache: KvCache | undefined, name: string, make: () => Tensor2D): Tensor2D {
  if (!cache) return make();
  return cache.reuse(name, make);
}

/** What a decoder looks at an encoder with: its queries, and the modules of keys and values. */
interface Look {
  readonly query: Tensor2D;
  readonly k: string;
  readonly v: string;
}

/**
 * A decoder's look at the encoder: keys and values are made once an encoder token, and handed out to the rows that look
 * at it.
 */
export function lookAtEncoder(
  w: Weights,
  { query, k, v }: Look,
  { x, decoder, cache, crossKeys }: Seq2SeqState,
  options: AttendOptions & DenseOptions,
): Tensor2D {
  const ofEncoder = (module: string) =>
    rows(
      reused(cache, module, () => dense(w, x, module, options)),
      tensor1d(crossKeys.ids, "int32"),
    );
  const segments = { queries: decoder.bias.map(withoutBias), keys: crossKeys.segments };
  return attend([query, ofEncoder(k), ofEncoder(v)], segments, options);
}

/**
 * The last block: the scores of targets; while text is generated, those of every row's next token.
 * @param block its name, what else it reads, and what it makes of the tokens that predict
 */
export function scoreBlock<Side extends SelfAttentionState>(
  block: Pick<Block<Seq2SeqState<Side>>, "id" | "shapes"> & {
    normalise(w: Weights, y: Tensor2D): Tensor2D;
  },
  unembedding: readonly [name: string, size: readonly [vocabulary: number, width: number]],
): Block<Seq2SeqState<Side>> {
  const predicting = (w: Weights, state: Seq2SeqState<Side>, tokens: Int32Array) =>
    block.normalise(w, rows(decoded(state), tensor1d(tokens, "int32")));
  return {
    id: block.id,
    shapes: new Map([...block.shapes, unembedding]),
    run(w, state) {
      const out = unembeddingOf(w, unembedding[0]);
      const { decoder } = state.batch;
      if (state.cache) return { ...state, y: tokenScores(predicting(w, state, decoder.first), out) };
      const predictions = predictionsOf(decoder);
      return { ...state, y: scoredTargets(predicting(w, state, predictions.tokens), out, predictions) };
    },
  };
}

/** A model that scores targets given a text, and says them. */
export function seq2seqModel<Side extends SelfAttentionState>(
  form: Seq2Seq<Side>,
): Model<Seq2SeqState<Side>, Seq2SeqBatch> {
  const { padId, width } = form;
  const blocks = [...form.encoder, ...form.decoder];
  return {
    blocks,
    parameters: shapesOfBlocks(blocks),
    width,
    heads: form.heads,
    vocabulary: form.vocabulary,
    maxLength: form.maxLength,
    scores: "encoder-decoder",
    tables: new Set(form.tables),
    prepare: (given) => prepare(given, form),
    lookups: form.lookups,
    generation: {
      firstBlock: form.encoder.length,
      ends: form.ends,
      cachedRows: ({ decoder }) => decoder,
      nextBatch(batch, tokens, step) {
        const next = tokens.map((id, r) => ({
          ids: [id],
          types: [],
          positions: [at(batch.decoder.rows, r).ids.length + step],
        }));
        return { ...batch, decoder: layout(next, padId, width) };
      },
    },
    start(batch, cache) {
      const keys = cache?.keys();
      const bias = causalBiases(batch.decoder);
      // The encoder of a text that has been read: none of its blocks runs again.
      const read = keys ? [] : batch.encoder.segments.map(attentionBias);
      return {
        batch,
        cache,
        x: noActivations(),
        y: undefined,
        crossKeys: crossKeysOf(batch),
        encoder: form.encoderSide(read),
        decoder: form.decoderSide({ bias, keys, cache }, keys ?? bias),
      };
    },
    carried: ({ x, y }) => [x, y].filter((t) => t !== undefined),
    carry: (start, [x, y]) => ({
      ...start,
      x: asMatrix(x, "the encoder's activations"),
      y: y && asMatrix(y, "the decoder's activations"),
    }),
    features: decoded,
  };
}
