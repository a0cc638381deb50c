/** DeBERTa's attention (He et al. 2020): contents and relative positions look at each other. */
import {
  add,
  gather,
  matMul,
  mul,
  reshape,
  slice,
  softmax,
  tensor1d,
  transpose,
  unsortedSegmentSum,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { scoresGradient } from "./attention.js";
import { op, sideBySide, spansOf } from "./ops.js";
import type { SegmentBias } from "./types.js";

/** How positions are told apart: so many buckets to either side, wider the farther away; 0 for a number each. */
export interface Distances {
  readonly buckets: number;
  readonly farthest: number;
  /** Positions to either side that the table has. */
  readonly span: number;
}

/** float32, as transformers computes it: its rounding decides where a bucket ends. */
const f = Math.fround;

function bucketOf(distance: number, { buckets, farthest }: Distances): number {
  const mid = Math.floor(buckets / 2);
  const far = Math.abs(distance);
  if (buckets <= 0 || far <= mid) return distance;
  const part = f(f(Math.log(f(far / mid))) / f(Math.log(f((farthest - 1) / mid))));
  return Math.sign(distance) * (Math.ceil(f(part * (mid - 1))) + mid);
}

/** Of every pair of a query and a key, the row of the table that is theirs: [length · length]. */
export function distanceRows(length: number, distances: Distances): Int32Array {
  const rows = new Int32Array(length * length);
  for (let q = 0; q < length; q++)
    for (let k = 0; k < length; k++) {
      const row = bucketOf(q - k, distances) + distances.span;
      rows[q * length + k] = Math.min(Math.max(row, 0), 2 * distances.span - 1);
    }
  return rows;
}

export interface Disentangled {
  readonly segments: readonly LaidSegment[];
  readonly heads: number;
  /** What each of the three products is multiplied by. */
  readonly scale: number;
  /** Of the table of positions. */
  readonly rows: number;
}

/** A segment with its first token, and for each pair of its positions places in [length · rows of the table]. */
export interface LaidSegment extends SegmentBias {
  readonly start: number;
  /** Of (query, key): the query's row of products with positions, at the pair's; the key's, likewise. */
  readonly byQuery: Int32Array;
  readonly byKey: Int32Array;
}

/** The segments of a batch, for all layers. */
export function layOut(segments: readonly SegmentBias[], distances: Distances): LaidSegment[] {
  const spans = spansOf(segments.map(({ size, length }) => size * length));
  return segments.map((segment, s) => {
    const { length } = segment;
    const rows = distanceRows(length, distances);
    const width = 2 * distances.span;
    return {
      ...segment,
      start: at(spans, s).start,
      byQuery: rows.map((row, pair) => Math.floor(pair / length) * width + row),
      byKey: rows.map((row, pair) => (pair % length) * width + row),
    };
  });
}

/** Rows of tokens as [heads, size, length, depth], and the way back. */
const split = (x: Tensor, { size, length, start }: LaidSegment, heads: number): Tensor =>
  transpose(reshape(slice(x, [start, 0], [size * length, -1]), [size, length, heads, -1]), [2, 0, 1, 3]);
const join = (x: Tensor): Tensor2D => {
  const [heads, size, length, depth] = x.shape as [number, number, number, number];
  return reshape(transpose(x, [1, 2, 0, 3]), [size * length, heads * depth]);
};

/** [rows, heads · depth] → [heads, rows, depth], and the way back. */
const splitTable = (x: Tensor2D, heads: number): Tensor =>
  transpose(reshape(x, [x.shape[0], heads, -1]), [1, 0, 2]);
const joinTable = (x: Tensor): Tensor2D => reshape(transpose(x, [1, 0, 2]), [at(x.shape, 1), -1]);

const flat = (x: Tensor): Tensor => {
  const [heads, size, length, depth] = x.shape as [number, number, number, number];
  return reshape(x, [heads, size * length, depth]);
};

/** x [heads, size, length, depth] times every position [heads, rows, depth], taken at each pair's place. */
function atPairs(x: Tensor, positions: Tensor, places: Int32Array): Tensor {
  const [heads, size, length] = x.shape as [number, number, number];
  const products = reshape(matMul(flat(x), positions, false, true), [heads * size, -1]);
  return reshape(gather(products, tensor1d(places, "int32"), 1), [heads, size, length, length]);
}

/** The gradient of those products: [heads, size · length, rows]. */
function pairsGradient(ds: Tensor, places: Int32Array, rows: number): Tensor {
  const [heads, size, length] = ds.shape as [number, number, number];
  const byPair = transpose(reshape(ds, [heads * size, length * length]), [1, 0]);
  const summed = unsortedSegmentSum(byPair, tensor1d(places, "int32"), length * rows);
  return reshape(transpose(summed, [1, 0]), [heads, size * length, rows]);
}

/**
 * softmax((Q Kᵀ + Q Pₖᵀ + K P_qᵀ) · scale + bias) V: of a query and a key, P is taken at how far they are apart.
 * @param q k, v [tokens, width], segment after segment
 * @param positions [rows, width] as keys and as queries
 * @returns [tokens, width]
 */
export function disentangledAttention(
  [q, k, v]: readonly [Tensor2D, Tensor2D, Tensor2D],
  positions: { readonly asKeys: Tensor2D; readonly asQueries: Tensor2D },
  form: Disentangled,
): Tensor2D {
  const { segments: all, heads, scale, rows } = form;
  return op(
    [q, k, v, positions.asKeys, positions.asQueries],
    ([allQ, allK, allV, asKeys, asQueries]) => {
      const [ofKeys, ofQueries] = [splitTable(asKeys, heads), mul(splitTable(asQueries, heads), scale)];
      const kept = all.map((segment) => {
        const scaledQ = mul(split(allQ, segment, heads), scale);
        const [ownK, ownV] = [split(allK, segment, heads), split(allV, segment, heads)];
        const scores = add(
          add(matMul(scaledQ, ownK, false, true), atPairs(scaledQ, ofKeys, segment.byQuery)),
          atPairs(ownK, ofQueries, segment.byKey),
        );
        const p = softmax(segment.bias ? add(scores, biasOf(segment)) : scores);
        return [scaledQ, ownK, ownV, p, matMul(p, ownV)];
      });
      const value = sideBySide(kept.map((one) => join(at(one, 4))));
      return { value, saved: [ofKeys, ofQueries, ...kept.flat()] };
    },
    (dy, saved) => {
      const [ofKeys, ofQueries] = [at(saved, 0), at(saved, 1)];
      const each = all.map((segment, s) => {
        const [scaledQ, ownK, ownV, p, out] = [0, 1, 2, 3, 4].map((i) => at(saved, 2 + 5 * s + i)) as [
          Tensor,
          Tensor,
          Tensor,
          Tensor,
          Tensor,
        ];
        const d = split(dy, segment, heads);
        const ds = scoresGradient({ p, v: ownV, out }, d);
        const dA = pairsGradient(ds, segment.byQuery, rows);
        const dC = pairsGradient(ds, segment.byKey, rows);
        const like = (x: Tensor): Tensor => reshape(x, scaledQ.shape);
        return {
          q: join(mul(add(matMul(ds, ownK), like(matMul(dA, ofKeys))), scale)),
          k: join(add(matMul(ds, scaledQ, true, false), like(matMul(dC, ofQueries)))),
          v: join(matMul(p, d, true, false)),
          asKeys: matMul(dA, flat(scaledQ), true, false),
          asQueries: mul(matMul(dC, flat(ownK), true, false), scale),
        };
      });
      const total = (of: "asKeys" | "asQueries"): Tensor2D =>
        joinTable(each.map((one) => one[of]).reduce((a, b) => add(a, b)));
      return [
        sideBySide(each.map((one) => one.q)),
        sideBySide(each.map((one) => one.k)),
        sideBySide(each.map((one) => one.v)),
        total("asKeys"),
        total("asQueries"),
      ];
    },
  );
}

/** A segment's bias [size or 1, 1, …] before heads that come first: [1, size or 1, 1 or length, length]. */
function biasOf({ bias }: SegmentBias): Tensor {
  if (!bias) throw new Error("the segment has no bias");
  const [size = 1, , rows = 1, length = 1] = bias.shape;
  return reshape(bias, [1, size, rows, length]);
}
