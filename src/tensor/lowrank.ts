/** A product of two narrow matrices, scaled: what LoRA adds to a weight as it is stored, [rows, width]. */
export interface Factors {
  /** [rows, rank] */
  readonly left: Float32Array;
  /** [rank, width] */
  readonly right: Float32Array;
  readonly rank: number;
  readonly scale: number;
}

/** [rows, columns] → [columns, rows]. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c]!;
  return out;
}

/**
 * Adds entries `from` to before `from + out.length` of scale · left · right to `out`.
 * @param width entries a row
 */
export function addFactors(
  out: Float32Array,
  from: number,
  width: number,
  { left, right, rank, scale }: Factors,
): void {
  const sums = new Float64Array(width);
  for (let at = 0; at < out.length;) {
    const row = Math.floor((from + at) / width);
    const start = from + at - row * width;
    const count = Math.min(width - start, out.length - at);
    sums.fill(0, 0, count);
    for (let q = 0; q < rank; q++) {
      const factor = left[row * rank + q]!;
      if (factor === 0) continue;
      const line = right.subarray(q * width + start, q * width + start + count);
      for (let i = 0; i < count; i++) sums[i] = sums[i]! + factor * line[i]!;
    }
    for (let i = 0; i < count; i++) out[at + i] = out[at + i]! + scale * sums[i]!;
    at += count;
  }
}

/** Multiplies entries from `from` on by l, one number a row or one a column: what (IA)³ does to a weight. */
export function scaleEntries(
  out: Float32Array,
  from: number,
  width: number,
  l: Float32Array,
  along: "rows" | "columns",
): void {
  for (let i = 0; i < out.length; i++) {
    const at = from + i;
    out[i] = out[i]! * l[along === "rows" ? Math.floor(at / width) : at % width]!;
  }
}
