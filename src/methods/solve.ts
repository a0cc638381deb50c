/** Σ a_i b_i over the first n, four sums at a time. */
function dot(a: Float64Array, b: Float64Array, n: number): number {
  let [p, q, r, s] = [0, 0, 0, 0];
  const whole = n & ~3;
  for (let i = 0; i < whole; i += 4) {
    p += a[i]! * b[i]!;
    q += a[i + 1]! * b[i + 1]!;
    r += a[i + 2]! * b[i + 2]!;
    s += a[i + 3]! * b[i + 3]!;
  }
  for (let i = whole; i < n; i++) p += a[i]! * b[i]!;
  return p + q + (r + s);
}

/**
 * Solves x A = b for every row of b in place, A symmetric and positive definite, by Cholesky's
 * decomposition. Everything goes along rows: a factor of 1536 rows takes seconds where a library's
 * general one, which goes down columns, takes minutes.
 * @param a [size, size]; its lower half becomes the factor
 * @param b rows of `size`
 * @returns false where A is not positive definite
 */
export function solveRows(a: Float64Array, b: Float64Array, size: number): boolean {
  const row = (r: number) => a.subarray(r * size, (r + 1) * size);
  const lines = Array.from({ length: size }, (_, r) => row(r));
  for (let r = 0; r < size; r++) {
    const mine = lines[r]!;
    for (let c = 0; c < r; c++) mine[c] = (mine[c]! - dot(mine, lines[c]!, c)) / lines[c]![c]!;
    const pivot = mine[r]! - dot(mine, mine, r);
    if (!(pivot > 0)) return false;
    mine[r] = Math.sqrt(pivot);
  }
  const count = b.length / size;
  // Eight right-hand sides at a time: a row of the factor is read once for all of them.
  for (let from = 0; from < count; from += 8) {
    const xs = Array.from({ length: Math.min(8, count - from) }, (_, i) =>
      b.subarray((from + i) * size, (from + i + 1) * size),
    );
    for (let r = 0; r < size; r++) {
      const mine = lines[r]!;
      for (const x of xs) x[r] = (x[r]! - dot(mine, x, r)) / mine[r]!;
    }
    for (let r = size - 1; r >= 0; r--) {
      const mine = lines[r]!;
      for (const x of xs) {
        const value = x[r]! / mine[r]!;
        x[r] = value;
        for (let c = 0; c < r; c++) x[c] = x[c]! - value * mine[c]!;
      }
    }
  }
  return true;
}
