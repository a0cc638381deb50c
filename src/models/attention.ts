/** Attention as custom-gradient ops (see ops.ts), a segment at a time: no row is padded to the longest of the batch. */
import {
  add,
  gather,
  matMul,
  mul,
  reshape,
  slice,
  softmax,
  stack,
  sub,
  sum,
  tensor1d,
  transpose,
  unsortedSegmentSum,
  unstack,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { op, sideBySide, spansOf } from "./ops.js";
import { capped, throughCap } from "./softcap.js";
import type { SegmentBias, SegmentShape } from "./types.js";

/** A segment, and its first token among those of all segments. */
type WithStart<S extends SegmentShape> = S & { readonly start: number };

function withStarts<S extends SegmentShape>(segments: readonly S[]): WithStart<S>[] {
  const spans = spansOf(segments.map(({ size, length }) => size * length));
  return segments.map((segment, s) => ({ ...segment, start: at(spans, s).start }));
}

/** A segment's tokens out of [tokens, width]; what is one segment alone is not copied. */
function tokensOfSegment(t: Tensor, { size, length, start }: WithStart<SegmentShape>): Tensor {
  const count = size * length;
  return count === t.shape[0] ? t : slice(t, [start, 0], [count, -1]);
}

/**
 * What a segment keeps for its backward, a head at a time: scaled queries, keys, values, softmax, result; scores too
 * where they are capped.
 */
interface Kept {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly p: Tensor;
  readonly out: Tensor;
  readonly capped?: Tensor | undefined;
}

/** As lists, which is what an op saves. */
const flattened = (all: readonly Kept[]): Tensor[] =>
  all.flatMap(({ q, k, v, p, out, capped: scores }) => [q, k, v, p, out, ...(scores ? [scores] : [])]);
/** @param each tensors that a segment kept */
const keptOf = (saved: readonly Tensor[], segment: number, each = 5): Kept => {
  const field = (i: number) => at(saved, each * segment + i);
  const kept = { q: field(0), k: field(1), v: field(2), p: field(3), out: field(4) };
  return each === 5 ? kept : { ...kept, capped: field(5) };
};

/**
 * ∂L/∂scores = p ⊙ (d vᵀ − Σ_j p_j (d vᵀ)_j), and that sum is ⟨d, out⟩: a pass over the depth, not over
 * the length.
 */
export const scoresGradient = ({ p, v, out }: Pick<Kept, "p" | "v" | "out">, d: Tensor): Tensor =>
  mul(p, sub(matMul(d, v, false, true), sum(mul(d, out), -1, true)));

/**
 * A learned bias by relative position: its table [buckets, heads] and, a segment each, the bucket of
 * every pair of positions.
 */
export interface RelativeBias {
  readonly table: Tensor2D;
  /** [length of the queries · length of the keys] a segment. */
  readonly buckets: readonly Int32Array[];
}

/** A segment of queries, and the keys that it looks at. */
interface Pair {
  readonly query: WithStart<SegmentShape>;
  readonly key: WithStart<SegmentBias>;
  /** Of every pair of their positions, where there is a table for that. */
  readonly buckets: Int32Array | undefined;
}

/** [1, heads, length of the queries, length of the keys] out of a table [buckets, heads]. */
function relativeScores(
  table: Tensor2D,
  { query, key }: { readonly query: SegmentShape; readonly key: SegmentShape },
  buckets: Int32Array,
): Tensor {
  const pairs = transpose(gather(table, tensor1d(buckets, "int32")), [1, 0]);
  return reshape(pairs, [1, table.shape[1], query.length, key.length]);
}

/** What a segment gives to the gradient of the table. */
function tableGradient(ds: Tensor, [rows, heads]: Tensor2D["shape"], buckets: Int32Array): Tensor {
  const pairs = transpose(reshape(sum(ds, 0), [heads, -1]), [1, 0]);
  return unsortedSegmentSum(pairs, tensor1d(buckets, "int32"), rows);
}

/**
 * softmax(Q Kᵀ / √d + bias) V for all heads of all segments.
 * @param projected [tokens, 3 · width]: query, key and value side by side, segment after segment
 * @returns [tokens, width]
 */
export function attention(
  projected: Tensor2D,
  segments: readonly SegmentBias[],
  heads: number,
  relative?: RelativeBias,
): Tensor2D {
  const width = projected.shape[1] / 3;
  const depth = width / heads;
  const scale = 1 / Math.sqrt(depth);
  const all = withStarts(segments);
  const tables = relative ? [relative.table] : [];
  return op(
    [projected, ...tables],
    ([input, table]) => {
      const kept = all.map((segment, s): Kept => {
        const { size, length, bias } = segment;
        const buckets = relative?.buckets[s];
        const split = reshape(tokensOfSegment(input, segment), [size, length, 3, heads, depth]);
        const parts = unstack(transpose(split, [2, 0, 3, 1, 4]));
        const [k, v] = [at(parts, 1), at(parts, 2)];
        const q = mul(at(parts, 0), scale);
        let scores = matMul(q, k, false, true);
        if (table && buckets)
          scores = add(scores, relativeScores(table, { query: segment, key: segment }, buckets));
        const p = softmax(bias ? add(scores, bias) : scores);
        return { q, k, v, p, out: matMul(p, v) };
      });
      const outputs = kept.map(({ out }): Tensor2D => reshape(transpose(out, [0, 2, 1, 3]), [-1, width]));
      return { value: sideBySide(outputs), saved: flattened(kept) };
    },
    (dy, saved) => {
      const gradients = all.map((segment, s) => {
        const { size, length } = segment;
        const kept = keptOf(saved, s);
        const d = transpose(
          reshape(tokensOfSegment(dy, segment), [size, length, heads, depth]),
          [0, 2, 1, 3],
        );
        const ds = scoresGradient(kept, d);
        const each = [
          mul(matMul(ds, kept.k), scale),
          matMul(ds, kept.q, true, false),
          matMul(kept.p, d, true, false),
        ];
        const buckets = relative?.buckets[s];
        return {
          projected: reshape(transpose(stack(each), [1, 3, 0, 2, 4]), [size * length, 3 * width]),
          table: relative && buckets && tableGradient(ds, relative.table.shape, buckets),
        };
      });
      const ofTables = gradients.flatMap(({ table }) => table ?? []);
      return [
        sideBySide(gradients.map((one) => one.projected)),
        ...tables.map(() => ofTables.reduce((a, b) => add(a, b))),
      ];
    },
  );
}

export interface AttendOptions {
  readonly heads: number;
  /** What Q Kᵀ is multiplied by. */
  readonly scale: number;
  /** What scores are capped at (softcap.ts). */
  readonly cap?: number | undefined;
  readonly relative?: RelativeBias | undefined;
}

/** Segments of queries, and those of the keys that they look at: one each, of the same size. Theirs is the bias. */
export interface AttendSegments {
  readonly queries: readonly SegmentBias[];
  readonly keys: readonly SegmentBias[];
}

/** How heads lie in tensors: `queries` heads of queries share `keys` heads of keys (grouped: Ainslie et al. 2023). */
class Heads {
  constructor(
    readonly queries: number,
    readonly keys: number,
    readonly depth: number,
  ) {}

  /** A segment's tokens [size · length, count · depth] → [size, count, length, depth]. */
  split(tokens: Tensor, { size, length }: SegmentShape, count: number): Tensor {
    return transpose(reshape(tokens, [size, length, count, this.depth]), [0, 2, 1, 3]);
  }

  /** The way back. */
  join(t: Tensor, count: number): Tensor2D {
    return reshape(transpose(t, [0, 2, 1, 3]), [-1, count * this.depth]);
  }

  /** Queries that share a head of keys stand one below the other: no head of keys is copied. */
  grouped(t: Tensor, size: number): Tensor {
    if (this.queries === this.keys) return t;
    return reshape(t, [size, this.keys, -1, at(t.shape, -1)]);
  }

  /** The way back. */
  apart(t: Tensor, { size, length }: SegmentShape): Tensor {
    if (this.queries === this.keys) return t;
    return reshape(t, [size, this.queries, length, -1]);
  }
}

interface AttendInputs {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly table: Tensor2D | undefined;
}

function attendSegment(
  heads: Heads,
  pair: Pair,
  inputs: AttendInputs,
  { scale, cap }: Pick<AttendOptions, "scale" | "cap">,
): Kept {
  const { query, key, buckets } = pair;
  const queries = heads.split(tokensOfSegment(inputs.q, query), query, heads.queries);
  const q = heads.grouped(mul(queries, scale), query.size);
  const k = heads.split(tokensOfSegment(inputs.k, key), key, heads.keys);
  const v = heads.split(tokensOfSegment(inputs.v, key), key, heads.keys);
  const raw = capped(matMul(q, k, false, true), cap);
  let scores = heads.apart(raw, query);
  if (inputs.table && buckets) scores = add(scores, relativeScores(inputs.table, pair, buckets));
  if (key.bias) scores = add(scores, key.bias);
  const p = heads.grouped(softmax(scores), query.size);
  return { q, k, v, p, out: matMul(p, v), capped: cap === undefined ? undefined : raw };
}

/**
 * The same with queries and keys of their own, which may come from other tokens, with fewer heads of
 * keys than of queries, and with a learned bias.
 * @param q [tokens, heads · depth], in the segments of `queries`
 * @param k [tokens, key heads · depth], in the segments of `keys`
 * @param v as k
 * @returns [tokens of q, heads · depth]
 */
export function attend(
  [q, k, v]: readonly [q: Tensor2D, k: Tensor2D, v: Tensor2D],
  segments: AttendSegments,
  { heads: count, scale, cap, relative }: AttendOptions,
): Tensor2D {
  const depth = q.shape[1] / count;
  const heads = new Heads(count, k.shape[1] / depth, depth);
  const keys = withStarts(segments.keys);
  const pairs = withStarts(segments.queries).map((query, s): Pair => ({
    query,
    key: at(keys, s),
    buckets: relative?.buckets[s],
  }));
  const tables = relative ? [relative.table] : [];
  return op(
    [q, k, v, ...tables],
    ([allQ, allK, allV, table]) => {
      const inputs = { q: allQ, k: allK, v: allV, table };
      const kept = pairs.map((pair) => attendSegment(heads, pair, inputs, { scale, cap }));
      const outputs = kept.map(({ out }, s) => heads.join(heads.apart(out, at(pairs, s).query), count));
      return { value: sideBySide(outputs), saved: flattened(kept) };
    },
    (dy, saved) => {
      const each = pairs.map(({ query, buckets }, s) => {
        const kept = keptOf(saved, s, saved.length / pairs.length);
        const d = heads.grouped(heads.split(tokensOfSegment(dy, query), query, count), query.size);
        const ofScores = scoresGradient(kept, d);
        const ds = kept.capped ? throughCap(ofScores, kept.capped, cap) : ofScores;
        return {
          table:
            relative && buckets && tableGradient(heads.apart(ofScores, query), relative.table.shape, buckets),
          q: heads.join(mul(heads.apart(matMul(ds, kept.k), query), scale), count),
          k: heads.join(matMul(ds, kept.q, true, false), heads.keys),
          v: heads.join(matMul(kept.p, d, true, false), heads.keys),
        };
      });
      const ofTables = each.flatMap(({ table }) => table ?? []);
      return [
        sideBySide(each.map((one) => one.q)),
        sideBySide(each.map((one) => one.k)),
        sideBySide(each.map((one) => one.v)),
        ...tables.map(() => ofTables.reduce((a, b) => add(a, b))),
      ];
    },
  );
}
