/** What methods do to all entries of a part: loops over arrays of float32, each its own small function. */
import { zip } from "./inputs.js";

/** An array that is kept from one part to the next. What was in it is still there. */
function scratchOf<T extends { readonly length: number; subarray(from: number, to: number): T }>(
  make: (size: number) => T,
): (size: number) => T {
  let array = make(0);
  return (size) => {
    if (array.length < size) array = make(size);
    return array.subarray(0, size);
  };
}

export const scratchFloats = (): ((size: number) => Float32Array) =>
  scratchOf((size) => new Float32Array(size));
export const scratchDoubles = (): ((size: number) => Float64Array) =>
  scratchOf((size) => new Float64Array(size));

/** sum += weight · x in float32 throughout, the weight too: an election of signs is PyTorch's to the last bit. */
export function addScaled(sum: Float32Array, x: Float32Array, weight = 1): void {
  const w = Math.fround(weight);
  if (w === 1) for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + x[i]!;
  else for (let i = 0; i < sum.length; i++) sum[i] = sum[i]! + Math.fround(w * x[i]!);
}

/** x *= factor. */
export function scaleBy(x: Float32Array, factor: number): void {
  if (factor !== 1) for (let i = 0; i < x.length; i++) x[i] = x[i]! * factor;
}

/** Every entry's sign, 1 or −1; 0 counts as positive. */
export function toSigns(x: Float32Array): void {
  for (let i = 0; i < x.length; i++) x[i] = x[i]! >= 0 ? 1 : -1;
}

/** Σ|x|, in float64. */
export function absoluteSum(x: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += Math.abs(x[i]!);
  return sum;
}

/** A term of a weighted sum. */
interface Term {
  readonly x: Float32Array;
  readonly factor: number;
}

/**
 * out = first + Σ coefficients_i · inputs_i (without a first: the sum alone). Four terms at a time are added in float64
 * and then rounded to float32.
 */
export function weightedSum(
  inputs: readonly Float32Array[],
  coefficients: readonly number[],
  out: Float32Array,
  first?: Float32Array,
): void {
  if (first) out.set(first);
  else out.fill(0);
  const terms = zip(inputs, coefficients).map(([x, factor]): Term => ({ x, factor }));
  // Four at a time: `out` is read and written that much less often.
  for (let n = 0; n < terms.length; n += 4) addTerms(out, terms.slice(n, n + 4));
}

/** out += up to four terms. */
function addTerms(out: Float32Array, [first, second, third, fourth]: readonly Term[]): void {
  if (!first) return;
  const { x: a, factor: p } = first;
  if (!second) {
    for (let i = 0; i < out.length; i++) out[i] = out[i]! + p * a[i]!;
    return;
  }
  const { x: b, factor: q } = second;
  if (!third) {
    for (let i = 0; i < out.length; i++) out[i] = out[i]! + p * a[i]! + q * b[i]!;
    return;
  }
  const { x: c, factor: r } = third;
  if (!fourth) {
    for (let i = 0; i < out.length; i++) out[i] = out[i]! + p * a[i]! + q * b[i]! + r * c[i]!;
    return;
  }
  const { x: d, factor: s } = fourth;
  for (let i = 0; i < out.length; i++) out[i] = out[i]! + p * a[i]! + q * b[i]! + r * c[i]! + s * d[i]!;
}
