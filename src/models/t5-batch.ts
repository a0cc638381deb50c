/** What T5 reads, and what its blocks hand on. */
import type { Tensor2D } from "@tensorflow/tfjs-core";
import { at, i32 } from "../at.js";
import { attentionBias, causalBiases, layout, rowsBySegment } from "./layout.js";
import { noActivations } from "./encoder.js";
import type { SelfAttentionState } from "./kv-cache.js";
import { decoderBuckets, encoderBuckets } from "./relative-positions.js";
import type { T5Config } from "./t5-config.js";
import type { KvCache, SegmentBias, TokenBatch, TokenRow } from "./types.js";

/** Encoder rows (each text once, however many targets it has) and decoder rows. */
export interface T5Batch {
  readonly encoder: TokenBatch;
  readonly decoder: TokenBatch;
  /** Of each of the decoder's rows, in their own order, the encoder row that it looks at. */
  readonly sources: readonly number[];
}

/** What all layers of an encoder or a decoder share: its segments, and the buckets of their relative positions. */
export interface T5Tower extends SelfAttentionState {
  readonly buckets: readonly Int32Array[];
}

/** Which of the encoder's tokens a decoder looks at, and how they lie as keys: a segment of queries each. */
export interface CrossKeys {
  readonly ids: Int32Array;
  readonly segments: readonly SegmentBias[];
}

export interface T5State {
  readonly batch: T5Batch;
  /** [encoder tokens, width]. */
  readonly x: Tensor2D;
  /** [decoder tokens, width], nothing before the decoder; [rows, 1] at the end. */
  readonly y: Tensor2D | undefined;
  readonly encoder: T5Tower;
  readonly decoder: T5Tower;
  readonly crossKeys: CrossKeys;
  readonly cache?: KvCache | undefined;
}

/** Lays texts out once each, and their targets behind the start token. */
export function prepareT5(given: readonly TokenRow[], { padId, start, width }: T5Config): T5Batch {
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
function crossKeysOf({ encoder, decoder, sources }: T5Batch): CrossKeys {
  const ids: number[] = [];
  const segments = rowsBySegment(decoder, sources).map(({ segment, rows }) => {
    const { size } = segment;
    const lengths = rows.map((source) => at(encoder.rows, source).ids.length);
    const length = Math.max(...lengths);
    const mask = lengths.some((n) => n < length) ? new Uint8Array(size * length) : undefined;
    for (const [r, source] of rows.entries()) {
      const [first, count] = [i32(encoder.first, source), at(lengths, r)];
      for (let i = 0; i < length; i++) ids.push(i < count ? first + i : 0);
      mask?.fill(1, r * length, r * length + count);
    }
    return attentionBias({ size, length, mask });
  });
  return { ids: Int32Array.from(ids), segments };
}

function encoderTower({ segments }: TokenBatch, config: T5Config): T5Tower {
  const bias = segments.map(attentionBias);
  return { bias, buckets: encoderBuckets(bias, config) };
}

/** The encoder of a text that has been read: none of its blocks runs again. */
const noTower: T5Tower = { bias: [], buckets: [] };

/** The state before the first block. */
export function startT5(batch: T5Batch, config: T5Config, cache: KvCache | undefined): T5State {
  const keys = cache?.keys();
  const bias = causalBiases(batch.decoder);
  return {
    batch,
    cache,
    x: noActivations(),
    y: undefined,
    crossKeys: crossKeysOf(batch),
    encoder: keys ? noTower : encoderTower(batch.encoder, config),
    decoder: { bias, keys, cache, buckets: decoderBuckets(bias, keys ?? bias, config) },
  };
}

/** The decoder's activations. @throws TypeError before it has initial */
export function decoded({ y }: T5State): Tensor2D {
  if (!y) throw new TypeError("the decoder has not read anything yet");
  return y;
}

/** What the first pass makes of the encoder is the same for every token that follows. */
export function reused(cache: KvCache | undefined, name: string, make: () => Tensor2D): Tensor2D {
  if (!cache) return make();
  return cache.reuse(name, make);
}
