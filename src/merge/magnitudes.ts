import { f32, f64 } from "../at.js";

/**
 * The exact k-th largest |x| over any number of arrays, with no copy and no sort: counts of the upper,
 * then of the lower half of the magnitude's bits (which order as the numbers do).
 */
export interface MagnitudeCounts {
  readonly counts: Float64Array;
  /** Only entries whose upper half is this are counted, by their lower half; undefined counts upper halves. */
  readonly upper?: number | undefined;
}

export const magnitudeCounts = (upper?: number): MagnitudeCounts => ({
  counts: new Float64Array(65536),
  upper,
});

/** Adds an array's entries. */
export function countMagnitudes({ counts, upper }: MagnitudeCounts, values: Float32Array): void {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) {
    const magnitude = bits[i]! & 0x7fffffff;
    if (upper === undefined) increment(counts, magnitude >>> 16);
    else if (magnitude >>> 16 === upper) increment(counts, magnitude & 0xffff);
  }
}

const increment = (counts: Float64Array, digit: number): void => {
  counts[digit] = counts[digit]! + 1;
};

/** The counts of two readings together, of the same digit. */
export const addCounts = (a: MagnitudeCounts, b: MagnitudeCounts): MagnitudeCounts => ({
  upper: a.upper,
  counts: a.counts.map((count, digit) => count + f64(b.counts, digit)),
});

/** The digit in which the entry of this rank (1 is the largest) lies, and its rank within it. */
export function digitOfRank({ counts }: MagnitudeCounts, rank: number): { digit: number; rank: number } {
  let left = rank;
  for (let digit = 65535; digit > 0; digit--) {
    const here = f64(counts, digit);
    if (left <= here) return { digit, rank: left };
    left -= here;
  }
  return { digit: 0, rank: left };
}

export const magnitudeOf = (upper: number, lower: number): number =>
  f32(new Float32Array(Uint32Array.of(((upper << 16) | lower) >>> 0).buffer), 0);

/** The magnitude that `density` of one array's entries reach (at least). Exact zeros count as entries, as in TIES. */
export function magnitudeThreshold(values: Float32Array, density: number): number {
  const keep = Math.min(values.length, Math.ceil(values.length * density));
  if (keep >= values.length) return 0;
  const count = (upper?: number): MagnitudeCounts => {
    const counts = magnitudeCounts(upper);
    countMagnitudes(counts, values);
    return counts;
  };
  const { digit, rank } = digitOfRank(count(), keep);
  return magnitudeOf(digit, digitOfRank(count(digit), rank).digit);
}
