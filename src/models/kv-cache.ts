import { concat, dispose, keep, tensor, tensor1d, type Tensor2D } from "@tensorflow/tfjs-core";
import { at, i32 } from "../at.js";
import { attend, type AttendOptions } from "./attention.js";
import { maskValue, withoutBias } from "./layout.js";
import { rows } from "./ops.js";
import type { KvCache, SegmentBias, TokenBatch } from "./types.js";

/** A cache that grows with every pass. */
export interface GrowingKvCache extends KvCache {
  /** Says what the next pass reads: the whole rows at first, then a token each. */
  read(batch: TokenBatch): void;
  dispose(): void;
}

/**
 * An empty cache of rows. Held on the device: two arrays a layer, [tokens read, width of the keys],
 * and what `reuse` made.
 */
export function emptyKvCache(): GrowingKvCache {
  const arrays = new Map<string, Tensor2D>();
  // Where in the cached arrays each row's tokens stand.
  let tokensOfRows: number[][] = [];
  let total = 0;
  let passes = 0;
  const longest = () => Math.max(...tokensOfRows.map(({ length }) => length));

  const put = (name: string, x: Tensor2D): Tensor2D => {
    const before = arrays.get(name);
    // A copy in the first pass too: what a layer made is its own pass's to dispose of.
    const now = keep(before ? concat([before, x], 0) : x.clone());
    before?.dispose();
    arrays.set(name, now);
    return now;
  };
  /** Row after row, padded to the longest with a token that the bias hides. */
  const laidOut = (x: Tensor2D): Tensor2D => {
    const length = longest();
    const padded = tokensOfRows.flatMap((tokens) => [
      ...tokens,
      ...Array<number>(length - tokens.length).fill(at(tokens, 0)),
    ]);
    return rows(x, tensor1d(padded, "int32"));
  };
  /** All rows as one segment of keys, of which a token sees so many. */
  const allRows = (window: number): SegmentBias => {
    const shape = { size: tokensOfRows.length, length: longest() };
    const { size, length } = shape;
    if (tokensOfRows.every((tokens) => tokens.length === length && length <= window))
      return withoutBias(shape);
    const values = new Float32Array(size * length).fill(maskValue);
    for (const [r, tokens] of tokensOfRows.entries())
      values.fill(0, r * length + Math.max(0, tokens.length - window), r * length + tokens.length);
    return { ...shape, bias: tensor(values, [size, 1, 1, length]) };
  };

  return {
    read({ rows: given, first, ids }) {
      if (passes++ === 0) tokensOfRows = given.map(() => []);
      for (const [r, tokens] of tokensOfRows.entries()) {
        const start = total + i32(first, r);
        tokens.push(...at(given, r).ids.map((_, i) => start + i));
      }
      total += ids.length;
    },
    keys: (window = Infinity) => (passes === 1 ? undefined : [allRows(window)]),
    extend(layer, k, v) {
      const [keys, values] = [put(`${layer} k`, k), put(`${layer} v`, v)];
      return passes === 1 ? [k, v] : [laidOut(keys), laidOut(values)];
    },
    // A handle of its own: whoever is done with it may dispose of it.
    reuse: (name, make) => (arrays.get(name) ?? put(name, make())).clone(),
    dispose: () => dispose([...arrays.values()]),
  };
}

/** What attention to a row's own tokens needs of the state of its side. */
export interface SelfAttentionState {
  readonly bias: readonly SegmentBias[];
  readonly keys?: readonly SegmentBias[] | undefined;
  readonly cache?: KvCache | undefined;
}

/**
 * Attention of a layer's tokens to their own rows: to what the pass reads, and with a cache, to all
 * that was read before.
 */
export function attendBack(
  layer: string,
  [q, k, v]: readonly [Tensor2D, Tensor2D, Tensor2D],
  { bias, keys, cache }: SelfAttentionState,
  options: AttendOptions,
): Tensor2D {
  const [cachedK, cachedV] = cache?.extend(layer, k, v) ?? [k, v];
  return attend([q, cachedK, cachedV], { queries: bias, keys: keys ?? bias }, options);
}
