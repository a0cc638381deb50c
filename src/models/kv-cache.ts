import { concat, dispose, keep, tensor, tensor1d, type Tensor2D } from "@tensorflow/tfjs-core";
import { attend, maskValue, type AttendOptions } from "./attention.js";
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
 * and what `once` made.
 * @param window how far back a token sees
 */
export function emptyKvCache(window = Infinity): GrowingKvCache {
  const kept = new Map<string, Tensor2D>();
  // Where in the kept arrays each row's tokens stand.
  let places: number[][] = [];
  let total = 0;
  let passes = 0;
  const longest = () => Math.max(...places.map(({ length }) => length));

  const put = (name: string, x: Tensor2D): Tensor2D => {
    const before = kept.get(name);
    // A copy in the first pass too: what a layer made is its own pass's to dispose of.
    const now = keep(before ? concat([before, x], 0) : x.clone());
    before?.dispose();
    kept.set(name, now);
    return now;
  };
  const laidOut = (x: Tensor2D): Tensor2D =>
    rows(
      x,
      tensor1d(
        places.flatMap((of) => [...of, ...Array<number>(longest() - of.length).fill(of[0]!)]),
        "int32",
      ),
    );

  return {
    read({ rows: given, first, ids }) {
      if (passes++ === 0) places = given.map(() => []);
      given.forEach((row, r) => places[r]!.push(...row.ids.map((_, i) => total + first[r]! + i)));
      total += ids.length;
    },
    keys() {
      if (passes === 1) return undefined;
      const [size, length] = [places.length, longest()];
      const hidden = (of: number[], i: number) => i >= of.length || of.length - 1 - i >= window;
      const any = places.some((of) => of.length < length || of.length > window);
      const segment: SegmentBias = {
        size,
        length,
        bias: any
          ? tensor(
              Float32Array.from({ length: size * length }, (_, i) =>
                hidden(places[Math.floor(i / length)]!, i % length) ? maskValue : 0,
              ),
              [size, 1, 1, length],
            )
          : undefined,
      };
      return [segment];
    },
    extend(layer, k, v) {
      const [keys, values] = [put(`${layer} k`, k), put(`${layer} v`, v)];
      return passes === 1 ? [k, v] : [laidOut(keys), laidOut(values)];
    },
    // A handle of its own: whoever is done with it may dispose of it.
    once: (name, make) => (kept.get(name) ?? put(name, make())).clone(),
    dispose: () => dispose([...kept.values()]),
  };
}

/**
 * Attention of a layer's tokens to their own rows: to what the pass reads, and with a cache, to all
 * that was read before.
 */
export function attendBack(
  layer: string,
  [q, k, v]: readonly [Tensor2D, Tensor2D, Tensor2D],
  {
    bias,
    keys,
    cache,
  }: { bias: readonly SegmentBias[]; keys?: readonly SegmentBias[] | undefined; cache?: KvCache | undefined },
  options: AttendOptions,
): Tensor2D {
  const [seenK, seenV] = cache?.extend(layer, k, v) ?? [k, v];
  return attend(q, seenK, seenV, { queries: bias, keys: keys ?? bias }, options);
}
