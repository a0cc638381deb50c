/** How rows lie in a batch, and what attention adds to its scores, so that padding and later tokens are not seen. */
import { tensor } from "@tensorflow/tfjs-core";
import type { Segment, SegmentBias, SegmentShape, TokenBatch, TokenRow } from "./types.js";
import { at } from "../at.js";

/**
 * Where to cut rows sorted by length into segments: the cuts that cost least when a padded token costs 1 and a
 * segment `perSegment` (its share of kernel calls). Exact, by dynamic programming over the sorted lengths.
 * @returns the end of each segment
 */
export function cutSegments(lengths: readonly number[], perSegment: number): number[] {
  // The cheapest way to cut the rows before each end: what it costs, and where its last segment begins.
  const best: { readonly cost: number; readonly from: number }[] = [{ cost: 0, from: 0 }];
  for (const [last, length] of lengths.entries()) {
    const end = last + 1;
    let found = { cost: Infinity, from: 0 };
    let from = 0;
    for (const before of best) {
      const cost = before.cost + perSegment + (end - from) * length;
      if (cost < found.cost) found = { cost, from };
      from++;
    }
    best.push(found);
  }
  const ends: number[] = [];
  for (let end = lengths.length; end > 0; end = at(best, end).from) ends.unshift(end);
  return ends;
}

/**
 * What one more segment costs in tokens: some twenty kernel calls a layer, each about 20 µs, against the
 * 72 · width² operations that a token of a layer takes forward and backward (at some hundred GFLOP/s).
 */
const segmentCost = (width: number): number => 2e6 / width ** 2;

/** Lays rows out for a model of some width: sorted by length, cut into segments, padded within each. */
export function layout(rows: readonly TokenRow[], padId: number, width: number): TokenBatch {
  const sorted = rows
    .map((row, given) => ({ row, given, length: row.ids.length }))
    .sort((a, b) => a.length - b.length);
  const ends = cutSegments(
    sorted.map(({ length }) => length),
    segmentCost(width),
  );
  let begin = 0;
  const groups = ends.map((end) => {
    const group = sorted.slice(begin, end);
    begin = end;
    // Sorted, so the last is the longest.
    return { group, length: at(group, -1).length };
  });
  const total = groups.reduce((sum, { group, length }) => sum + group.length * length, 0);
  const ids = new Int32Array(total).fill(padId);
  const [types, positions] = [new Int32Array(total), new Int32Array(total)];
  const first = new Int32Array(rows.length);
  const segments: Segment[] = [];
  let token = 0;
  for (const { group, length } of groups) {
    const size = group.length;
    const mask = at(group, 0).length < length ? new Uint8Array(size * length) : undefined;
    for (const [r, { row, given }] of group.entries()) {
      first[given] = token;
      ids.set(row.ids, token);
      types.set(row.types, token);
      for (let i = 0; i < length; i++) positions[token + i] = row.positions?.[i] ?? i;
      mask?.fill(1, r * length, r * length + row.ids.length);
      token += length;
    }
    segments.push({ size, length, mask });
  }
  return { segments, ids, types, positions, first, order: sorted.map(({ given }) => given), rows };
}

/**
 * Every segment with what belongs to its rows, in the order in which they lie.
 * @param items one a row, in the order in which the rows were given
 */
export function rowsBySegment<T>(
  { segments, order }: TokenBatch,
  items: readonly T[],
): { readonly segment: Segment; readonly rows: T[] }[] {
  let begin = 0;
  return segments.map((segment) => {
    const rows = order.slice(begin, begin + segment.size).map((given) => at(items, given));
    begin += segment.size;
    return { segment, rows };
  });
}

// The lowest finite float32, as transformers uses: softmax gives such a token exactly zero.
export const maskValue = -3.4028234663852886e38;

/** A segment all of whose tokens see each other. */
export const withoutBias = ({ size, length }: SegmentShape): SegmentBias => ({
  size,
  length,
  bias: undefined,
});

/** The bias that hides a segment's padding. */
export function attentionBias(segment: Segment): SegmentBias {
  const { size, length, mask } = segment;
  if (!mask) return withoutBias(segment);
  const values = Float32Array.from(mask, (isToken) => (isToken ? 0 : maskValue));
  return { size, length, bias: tensor(values, [size, 1, 1, length]) };
}

/**
 * The bias that hides padding, and what lies more than `reach` tokens away to either side. Padding itself sees itself:
 * where a token sees nothing, WebGPU's softmax is no number.
 */
export function windowBias(segment: Segment, reach: number): SegmentBias {
  const { size, length, mask } = segment;
  if (length <= reach + 1) return attentionBias(segment);
  const rows = mask ? size : 1;
  const values = new Float32Array(rows * length * length);
  for (let r = 0; r < rows; r++)
    for (let q = 0; q < length; q++)
      for (let k = 0; k < length; k++) {
        const isHidden = Math.abs(q - k) > reach || mask?.[r * length + k] === 0;
        if (isHidden && q !== k) values[(r * length + q) * length + k] = maskValue;
      }
  return { size, length, bias: tensor(values, [rows, 1, length, length]) };
}

/**
 * The bias that hides what comes after a token, and with a window, what lies that far before it. Padding comes after
 * every token of its row, so it is hidden with that; what padding itself sees does not matter.
 */
export function causalBias(segment: SegmentShape, window = Infinity): SegmentBias {
  const { size, length } = segment;
  if (length === 1) return withoutBias(segment);
  const values = new Float32Array(length * length);
  for (let q = 0; q < length; q++)
    for (let k = 0; k < length; k++) if (k > q || q - k >= window) values[q * length + k] = maskValue;
  return { size, length, bias: tensor(values, [1, 1, length, length]) };
}

/** Whether targets stand side by side in a row, at positions of their own; turns of a conversation do not. */
const isBranched = ({ positions, scored = [] }: TokenRow): boolean =>
  positions !== undefined && scored.length > 1;

/**
 * {@link causalBias} of rows that hold targets side by side: each sees the text before all of them, and
 * itself. [size, 1, length, length]
 */
function branchedBias(
  { size, length }: SegmentShape,
  rows: readonly TokenRow[],
  window: number,
): SegmentBias {
  const values = new Float32Array(size * length * length);
  for (const [r, row] of rows.entries()) {
    const { positions, scored = [] } = row;
    // 0 for the text, then a number for each of the targets.
    const branch = new Int32Array(length);
    for (const [b, { second, targets }] of isBranched(row) ? scored.entries() : [])
      branch.fill(b + 1, second, second + targets.length - 1);
    const position = (i: number) => positions?.[i] ?? i;
    for (let q = 0; q < length; q++) {
      for (let k = 0; k < length; k++) {
        const isOther = branch[k] !== 0 && branch[k] !== branch[q];
        if (k > q || isOther || position(q) - position(k) >= window)
          values[(r * length + q) * length + k] = maskValue;
      }
    }
  }
  return { size, length, bias: tensor(values, [size, 1, length, length]) };
}

/** The bias of every segment of a batch that is read from its beginning on. */
export const causalBiases = (batch: TokenBatch, window = Infinity): SegmentBias[] =>
  rowsBySegment(batch, batch.rows).map(({ segment, rows }) => {
    if (rows.some(isBranched)) return branchedBias(segment, rows, window);
    return causalBias(segment, window);
  });
