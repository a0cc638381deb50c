import { at } from "../at.js";
import type { SegmentShape } from "./types.js";

/** How T5 sorts distances between tokens into buckets, each of which has a bias of its own. */
export interface BucketOptions {
  readonly buckets: number;
  /** From this distance on, all are in one bucket. */
  readonly distance: number;
}

/** The bucket of a distance ≥ 0: one each for the short ones, then wider and wider. */
function bucketOfDistance(distance: number, count: number, most: number): number {
  const exact = Math.floor(count / 2);
  if (distance < exact) return distance;
  // In float32, as PyTorch has it: at a bucket's edge it decides.
  const log = Math.fround(
    Math.fround(Math.fround(Math.log(distance / exact)) / Math.fround(Math.log(most / exact))) *
      (count - exact),
  );
  return Math.min(count - 1, exact + Math.trunc(log));
}

/** The bucket of a key's position minus the query's, of tokens that see both ways. */
function bucketBothWays(offset: number, { buckets, distance }: BucketOptions): number {
  const count = buckets / 2;
  const bucket = bucketOfDistance(Math.abs(offset), count, distance);
  return offset > 0 ? count + bucket : bucket;
}

/** The bucket of a key's position minus the query's, of tokens that see those before them. */
const bucketBackwards = (offset: number, { buckets, distance }: BucketOptions): number =>
  bucketOfDistance(Math.max(0, -offset), buckets, distance);

/** Of every pair of positions; of queries that stand at the end of their keys. */
function bucketsOfPairs(queries: number, keys: number, bucketOf: (offset: number) => number): Int32Array {
  const before = keys - queries;
  return Int32Array.from({ length: queries * keys }, (_, i) =>
    bucketOf((i % keys) - Math.floor(i / keys) - before),
  );
}

/** Buckets of an encoder's segments, whose tokens see each other. */
export const encoderBuckets = (segments: readonly SegmentShape[], options: BucketOptions): Int32Array[] =>
  segments.map(({ length }) => bucketsOfPairs(length, length, (offset) => bucketBothWays(offset, options)));

/**
 * Buckets of a decoder's segments, whose tokens see those before them.
 * @param keys what they look at, a segment each: themselves, or a cache of all that was read
 */
export const decoderBuckets = (
  segments: readonly SegmentShape[],
  keys: readonly SegmentShape[],
  options: BucketOptions,
): Int32Array[] =>
  segments.map(({ length }, s) =>
    bucketsOfPairs(length, at(keys, s).length, (offset) => bucketBackwards(offset, options)),
  );
