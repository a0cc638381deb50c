import type { Segment, TokenBatch, TokenRow } from "./types.js";

/**
 * Where to cut rows sorted by length into segments: the cuts that cost least when a padded token costs 1 and a
 * segment `perSegment` (its share of kernel calls). Exact, by dynamic programming over the sorted lengths.
 * @returns the end of each segment
 */
export function cutSegments(lengths: readonly number[], perSegment: number): number[] {
  const best: { cost: number; from: number }[] = [{ cost: 0, from: 0 }];
  for (let end = 1; end <= lengths.length; end++) {
    let found = { cost: Infinity, from: 0 };
    for (let from = 0; from < end; from++) {
      const cost = best[from]!.cost + perSegment + (end - from) * lengths[end - 1]!;
      if (cost < found.cost) found = { cost, from };
    }
    best.push(found);
  }
  const ends: number[] = [];
  for (let end = lengths.length; end > 0; end = best[end]!.from) ends.unshift(end);
  return ends;
}

/**
 * What one more segment costs in tokens: some twenty kernel calls a layer, each about 20 µs, against the
 * 72 · width² operations that a token of a layer takes forward and backward (at some hundred GFLOP/s).
 */
const segmentCost = (width: number): number => 2e6 / width ** 2;

/** Lays rows out for a model of some width: sorted by length, cut into segments, padded within each. */
export function layout(rows: readonly TokenRow[], padId: number, width: number): TokenBatch {
  const order = rows.map((_, i) => i).sort((a, b) => rows[a]!.ids.length - rows[b]!.ids.length);
  const lengths = order.map((i) => rows[i]!.ids.length);
  const ends = cutSegments(lengths, segmentCost(width));
  const total = ends.reduce((sum, end, s) => sum + (end - (ends[s - 1] ?? 0)) * lengths[end - 1]!, 0);
  const [ids, types, positions] = [
    new Int32Array(total).fill(padId),
    new Int32Array(total),
    new Int32Array(total),
  ];
  const first = new Int32Array(rows.length);
  const segments: Segment[] = [];
  let at = 0;
  for (const [s, end] of ends.entries()) {
    const start = ends[s - 1] ?? 0;
    const [size, length] = [end - start, lengths[end - 1]!];
    const padded = lengths[start]! < length;
    const mask = padded ? new Uint8Array(size * length) : undefined;
    for (let r = 0; r < size; r++, at += length) {
      const row = rows[order[start + r]!]!;
      first[order[start + r]!] = at;
      ids.set(row.ids, at);
      types.set(row.types, at);
      for (let i = 0; i < length; i++) positions[at + i] = row.positions?.[i] ?? i;
      mask?.fill(1, r * length, r * length + row.ids.length);
    }
    segments.push({ size, length, mask });
  }
  return { segments, ids, types, positions, first, order, rows };
}
