import { add, concat, matMul, mul, reshape, slice, softmax, stack, sub, sum, tensor4d, transpose, unstack, type Tensor, type Tensor2D, type Tensor4D } from "@tensorflow/tfjs-core";
import { op } from "./ops.js";
import type { Segment } from "./types.js";

/** A segment as attention needs it. */
export interface SegmentBias {
  readonly size: number;
  readonly length: number;
  /** [size, 1, 1, length] added to the scores: 0 where a token may be seen, very negative where not. */
  readonly bias: Tensor4D | undefined;
}

/** The bias that hides a segment's padding. */
export function attentionBias({ size, length, mask }: Segment): SegmentBias {
  // The lowest finite float32, as transformers uses: softmax gives such a token exactly zero.
  const bias = mask && tensor4d(Float32Array.from(mask, (seen) => (seen ? 0 : -3.4028234663852886e38)), [size, 1, 1, length]);
  return { size, length, bias };
}

/**
 * softmax(Q Kᵀ / √d + bias) V for all heads of all segments.
 * @param projected [tokens, 3 · width]: query, key and value side by side, segment after segment
 * @returns [tokens, width]
 */
export function attention(projected: Tensor2D, segments: readonly SegmentBias[], heads: number): Tensor2D {
  const width = projected.shape[1] / 3;
  const depth = width / heads;
  const scale = 1 / Math.sqrt(depth);
  const starts = segments.map((_, s) => segments.slice(0, s).reduce((sum, { size, length }) => sum + size * length, 0));
  const part = (t: Tensor, s: number) => (segments.length === 1 ? t : slice(t, [starts[s]!, 0], [segments[s]!.size * segments[s]!.length, -1]));
  const whole = (parts: Tensor[]) => (parts.length === 1 ? parts[0]! : concat(parts, 0)) as Tensor2D;
  return op<Tensor2D>([projected], ([input], save) => {
    const kept: Tensor[] = [];
    const outputs = segments.map(({ size, length, bias }, s) => {
      const [rawQ, k, v] = unstack(transpose(reshape(part(input!, s), [size, length, 3, heads, depth]), [2, 0, 3, 1, 4])) as [Tensor, Tensor, Tensor];
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
      backward: (dy, saved) => [whole(segments.map(({ size, length }, s) => {
        const [q, k, v, p, out] = saved.slice(5 * s, 5 * s + 5) as [Tensor, Tensor, Tensor, Tensor, Tensor];
        const d = transpose(reshape(part(dy, s), [size, length, heads, depth]), [0, 2, 1, 3]);
        // ∂L/∂scores = p ⊙ (d vᵀ − Σ_j p_j (d vᵀ)_j), and that sum is ⟨d, out⟩: a pass over `depth`, not `length`.
        const ds = mul(p, sub(matMul(d, v, false, true), sum(mul(d, out), -1, true)));
        const gradients = [mul(matMul(ds, k), scale), matMul(ds, q, true, false), matMul(p, d, true, false)];
        return reshape(transpose(stack(gradients), [1, 3, 0, 2, 4]), [size * length, 3 * width]);
      }))],
    };
  });
}
