import * as access from "../at.js";

// Names of this module's own: through an import, which V8 does not see through in a loop, access takes a third longer.
const { f32, f64 } = access;

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
    for (let c = 0; c < columns; c++) out[c * rows + r] = f32(values, r * columns + c);
  return out;
}

/** out += factor · line, in the first entries of `out`. */
export function addMultiple(out: Float64Array, factor: number, line: Float32Array): void {
  for (let c = 0; c < line.length; c++) out[c] = f64(out, c) + factor * f32(line, c);
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
      const factor = f32(left, row * rank + q);
      if (factor === 0) continue;
      addMultiple(sums, factor, right.subarray(q * width + start, q * width + start + count));
    }
    for (let i = 0; i < count; i++) out[at + i] = f32(out, at + i) + scale * f64(sums, i);
    at += count;
  }
}

/**
 * Gives whole rows of a weight the lengths that DoRA (Liu et al. 2024) trains: m / ‖row‖ times each.
 * @param width entries a row
 * @param lengths one a row of the whole weight
 * @throws RangeError where rows are cut
 */
export function setRowLengths(out: Float32Array, from: number, width: number, lengths: Float32Array): void {
  if (from % width !== 0 || out.length % width !== 0)
    throw new RangeError(
      `DoRA works on whole rows of ${width}, not on entries ${from} to ${from + out.length}`,
    );
  for (let start = 0; start < out.length; start += width) {
    let square = 0;
    for (let i = start; i < start + width; i++) square += f32(out, i) ** 2;
    const factor = f32(lengths, (from + start) / width) / Math.sqrt(square);
    for (let i = start; i < start + width; i++) out[i] = f32(out, i) * factor;
  }
}

/** One number a row or one a column: what (IA)³ multiplies a weight by. */
export interface Scaling {
  readonly l: Float32Array;
  readonly along: "rows" | "columns";
}

/**
 * Multiplies entries `from` to before `from + out.length` of a weight.
 * @param width entries a row
 */
export function scaleEntries(out: Float32Array, from: number, width: number, { l, along }: Scaling): void {
  const isByRow = along === "rows";
  for (let i = 0; i < out.length; i++) {
    const entry = from + i;
    const line = isByRow ? Math.floor(entry / width) : entry % width;
    out[i] = f32(out, i) * f32(l, line);
  }
}
