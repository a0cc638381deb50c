/** What attention adds to its scores, so that padding and later tokens are not seen. */
import { tensor } from "@tensorflow/tfjs-core";
import { rowsBySegment } from "./layout.js";
import type { Segment, SegmentBias, SegmentShape, TokenBatch, TokenRow } from "./types.js";

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
  for (const [r, { positions, scored = [] }] of rows.entries()) {
    // 0 for the text, then a number for each of the targets.
    const branch = new Int32Array(length);
    for (const [b, { second, targets }] of scored.entries())
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
    if (rows.some(({ scored = [] }) => scored.length > 1)) return branchedBias(segment, rows, window);
    return causalBias(segment, window);
  });
