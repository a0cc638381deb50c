import {
  add,
  concat,
  gather,
  matMul,
  mul,
  reshape,
  slice,
  softmax,
  stack,
  sub,
  sum,
  tensor,
  tensor1d,
  transpose,
  unsortedSegmentSum,
  unstack,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { op } from "./ops.js";
import type { Segment, SegmentBias, TokenBatch, TokenRow } from "./types.js";

// The lowest finite float32, as transformers uses: softmax gives such a token exactly zero.
export const maskValue = -3.4028234663852886e38;

/** The bias that hides a segment's padding. */
export function attentionBias({
  size,
  length,
  mask,
}: Pick<Segment, "size" | "length" | "mask">): SegmentBias {
  return {
    size,
    length,
    bias:
      mask &&
      tensor(
        Float32Array.from(mask, (seen) => (seen ? 0 : maskValue)),
        [size, 1, 1, length],
      ),
  };
}

/**
 * The bias that hides what comes after a token, and with a window, what lies that far before it. Padding comes after
 * every token of its row, so it is hidden with that; what its own places see is nobody's concern.
 */
export function causalBias(
  { size, length }: Pick<Segment, "size" | "length">,
  window = Infinity,
): SegmentBias {
  const values = new Float32Array(length * length);
  for (let q = 0; q < length; q++)
    for (let k = 0; k < length; k++) if (k > q || q - k >= window) values[q * length + k] = maskValue;
  return { size, length, bias: length === 1 ? undefined : tensor(values, [1, 1, length, length]) };
}

/**
 * {@link causalBias} of rows that hold targets side by side: each sees the text before all of them, and
 * itself. [size, 1, length, length]
 */
function branchedBias({ size, length }: Segment, rows: readonly TokenRow[], window: number): SegmentBias {
  const values = new Float32Array(size * length * length);
  for (const [r, { positions, scored = [] }] of rows.entries()) {
    // 0 for the text, then a number for each of the targets.
    const branch = new Int32Array(length);
    for (const [b, { second, targets }] of scored.entries())
      branch.fill(b + 1, second, second + targets.length - 1);
    const place = (i: number) => positions?.[i] ?? i;
    for (let q = 0; q < length; q++) {
      for (let k = 0; k < length; k++) {
        if (k > q || (branch[k] !== 0 && branch[k] !== branch[q]) || place(q) - place(k) >= window)
          values[(r * length + q) * length + k] = maskValue;
      }
    }
  }
  return { size, length, bias: tensor(values, [size, 1, length, length]) };
}

/** The bias of every segment of a batch that is read from its beginning on. */
export function causalBiases({ segments, order, rows }: TokenBatch, window = Infinity): SegmentBias[] {
  let at = 0;
  return segments.map((segment) => {
    const mine = order.slice(at, (at += segment.size)).map((r) => rows[r]!);
    return mine.some(({ scored = [] }) => scored.length > 1)
      ? branchedBias(segment, mine, window)
      : causalBias(segment, window);
  });
}

/** Where each segment's tokens begin. */
const startsOf = (segments: readonly SegmentBias[]): number[] =>
  segments.map((_, s) => segments.slice(0, s).reduce((sum, { size, length }) => sum + size * length, 0));
const part = (t: Tensor, segments: readonly SegmentBias[], starts: readonly number[], s: number): Tensor =>
  segments.length === 1 ? t : slice(t, [starts[s]!, 0], [segments[s]!.size * segments[s]!.length, -1]);
const whole = (parts: Tensor[]) => (parts.length === 1 ? parts[0]! : concat(parts, 0)) as Tensor2D;

/**
 * ∂L/∂scores = p ⊙ (d vᵀ − Σ_j p_j (d vᵀ)_j), and that sum is ⟨d, out⟩: a pass over the depth, not over
 * the length.
 */
const scoresGradient = (p: Tensor, v: Tensor, d: Tensor, out: Tensor): Tensor =>
  mul(p, sub(matMul(d, v, false, true), sum(mul(d, out), -1, true)));

/**
 * softmax(Q Kᵀ / √d + bias) V for all heads of all segments.
 * @param projected [tokens, 3 · width]: query, key and value side by side, segment after segment
 * @returns [tokens, width]
 */
export function attention(projected: Tensor2D, segments: readonly SegmentBias[], heads: number): Tensor2D {
  const width = projected.shape[1] / 3;
  const depth = width / heads;
  const scale = 1 / Math.sqrt(depth);
  const starts = startsOf(segments);
  return op<Tensor2D>([projected], ([input], save) => {
    const kept: Tensor[] = [];
    const outputs = segments.map(({ size, length, bias }, s) => {
      const [rawQ, k, v] = unstack(
        transpose(
          reshape(part(input!, segments, starts, s), [size, length, 3, heads, depth]),
          [2, 0, 3, 1, 4],
        ),
      ) as [Tensor, Tensor, Tensor];
      const q = mul(rawQ, scale);
      const scores = matMul(q, k, false, true);
      const p = softmax(bias ? add(scores, bias) : scores);
      const out = matMul(p, v);
      kept.push(q, k, v, p, out);
      return reshape(transpose(out, [0, 2, 1, 3]), [size * length, width]);
    });
    save(kept);
    return {
      value: whole(outputs),
      backward: (dy, saved) => [
        whole(
          segments.map(({ size, length }, s) => {
            const [q, k, v, p, out] = saved.slice(5 * s, 5 * s + 5) as [
              Tensor,
              Tensor,
              Tensor,
              Tensor,
              Tensor,
            ];
            const d = transpose(
              reshape(part(dy, segments, starts, s), [size, length, heads, depth]),
              [0, 2, 1, 3],
            );
            const ds = scoresGradient(p, v, d, out);
            const gradients = [
              mul(matMul(ds, k), scale),
              matMul(ds, q, true, false),
              matMul(p, d, true, false),
            ];
            return reshape(transpose(stack(gradients), [1, 3, 0, 2, 4]), [size * length, 3 * width]);
          }),
        ),
      ],
    };
  });
}

/**
 * A learned bias by relative position: its table [buckets, heads] and, a segment each, the bucket of
 * every pair of places.
 */
export interface RelativeBias {
  readonly table: Tensor2D;
  /** [length of the queries · length of the keys] a segment. */
  readonly buckets: readonly Int32Array[];
}

export interface AttendOptions {
  readonly heads: number;
  /** What Q Kᵀ is multiplied by. */
  readonly scale: number;
  readonly relative?: RelativeBias | undefined;
}

/**
 * The same with queries and keys of their own, which may come from other tokens, with fewer heads of
 * keys than of queries (grouped: Ainslie et al. 2023), and with a learned bias.
 * @param q [tokens, heads · depth], in the segments of `queries`
 * @param k [tokens, key heads · depth], in the segments of `keys`: one a segment of queries, of the
 *   same size; theirs is the bias
 * @param v as k
 * @returns [tokens of q, heads · depth]
 */
export function attend(
  q: Tensor2D,
  k: Tensor2D,
  v: Tensor2D,
  { queries, keys }: { queries: readonly SegmentBias[]; keys: readonly SegmentBias[] },
  { heads, scale, relative }: AttendOptions,
): Tensor2D {
  const width = q.shape[1];
  const depth = width / heads;
  const keyHeads = k.shape[1] / depth;
  const group = heads / keyHeads;
  const [qStarts, kStarts] = [startsOf(queries), startsOf(keys)];
  const split = (
    t: Tensor,
    segments: readonly SegmentBias[],
    starts: readonly number[],
    s: number,
    count: number,
  ) =>
    transpose(
      reshape(part(t, segments, starts, s), [segments[s]!.size, segments[s]!.length, count, depth]),
      [0, 2, 1, 3],
    );
  const join = (t: Tensor, count: number) => reshape(transpose(t, [0, 2, 1, 3]), [-1, count * depth]);
  // Queries that share a head of keys stand one below the other: no head of keys is copied.
  const grouped = (t: Tensor, size: number) =>
    group === 1 ? t : reshape(t, [size, keyHeads, -1, t.shape.at(-1)!]);
  const apart = (t: Tensor, size: number, length: number) =>
    group === 1 ? t : reshape(t, [size, heads, length, -1]);
  const inputs: Tensor[] = relative ? [q, k, v, relative.table] : [q, k, v];
  return op<Tensor2D>(inputs, ([rawQ, rawK, rawV, table], save) => {
    const kept: Tensor[] = [];
    const outputs = queries.map(({ size, length }, s) => {
      const { length: keyLength, bias } = keys[s]!;
      const sq = grouped(mul(split(rawQ!, queries, qStarts, s, heads), scale), size);
      const [sk, sv] = [split(rawK!, keys, kStarts, s, keyHeads), split(rawV!, keys, kStarts, s, keyHeads)];
      let scores = apart(matMul(sq, sk, false, true), size, length);
      if (table)
        scores = add(
          scores,
          reshape(transpose(gather(table, tensor1d(relative!.buckets[s]!, "int32")), [1, 0]), [
            1,
            heads,
            length,
            keyLength,
          ]),
        );
      const p = grouped(softmax(bias ? add(scores, bias) : scores), size);
      const out = matMul(p, sv);
      kept.push(sq, sk, sv, p, out);
      return join(apart(out, size, length), heads);
    });
    save(kept);
    return {
      value: whole(outputs),
      backward(dy, saved) {
        let dTable: Tensor | undefined;
        const parts = queries.map(({ size, length }, s) => {
          const [sq, sk, sv, p, out] = saved.slice(5 * s, 5 * s + 5) as [
            Tensor,
            Tensor,
            Tensor,
            Tensor,
            Tensor,
          ];
          const d = grouped(split(dy, queries, qStarts, s, heads), size);
          const ds = scoresGradient(p, sv, d, out);
          if (relative) {
            const pairs = transpose(reshape(sum(apart(ds, size, length), 0), [heads, -1]), [1, 0]);
            const mine = unsortedSegmentSum(
              pairs,
              tensor1d(relative.buckets[s]!, "int32"),
              relative.table.shape[0],
            );
            dTable = dTable ? add(dTable, mine) : mine;
          }
          const dq = mul(apart(matMul(ds, sk), size, length), scale);
          return [
            join(dq, heads),
            join(matMul(ds, sq, true, false), keyHeads),
            join(matMul(p, d, true, false), keyHeads),
          ] as const;
        });
        return [
          ...([0, 1, 2] as const).map((i) => whole(parts.map((one) => one[i]))),
          ...(dTable ? [dTable] : []),
        ];
      },
    };
  });
}

/** cos and sin of every token's angles, [tokens, 1, depth] each. */
export interface Angles {
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/**
 * Rotary position embedding (Su et al. 2021) in halves, as transformers has it: x ⊙ cos + (−x₂, x₁) ⊙
 * sin, a head at a time.
 */
export function rotary(x: Tensor2D, heads: number, { cos, sin }: Angles): Tensor2D {
  const [tokens, width] = x.shape;
  const half = width / heads / 2;
  const turned = (t: Tensor, sign: 1 | -1) => {
    const [first, second] = [slice(t, [0, 0, 0], [-1, -1, half]), slice(t, [0, 0, half], [-1, -1, half])];
    return concat([mul(second, -sign), mul(first, sign)], 2);
  };
  return op<Tensor2D>([x], ([input], save) => {
    const heads3d = reshape(input!, [tokens, heads, 2 * half]);
    save([cos, sin]);
    return {
      value: reshape(add(mul(heads3d, cos), mul(turned(heads3d, 1), sin)), [tokens, width]),
      backward(dy, [c, s]) {
        const d = reshape(dy, [tokens, heads, 2 * half]);
        return [reshape(add(mul(d, c!), turned(mul(d, s!), -1)), [tokens, width])];
      },
    };
  });
}
