import { expect } from "vitest";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { toFloat32, type DType } from "../../src/tensor/dtype.js";

/** Bits behind the leading one. */
const digits: Partial<Record<DType, number>> = { F16: 10, BF16: 7 };

/**
 * Holds a result against mergekit's. Float32: a few roundings of the largest number that takes part. Halves: one step
 * of the number, where a rounding may fall either way; where mergekit computes in halves too, two steps of the largest.
 */
export async function expectClose(own: string, mergekits: string, inHalves: boolean): Promise<void> {
  const [ours, theirs] = [await openSafetensors(own), await openSafetensors(mergekits)];
  expect([...ours.entries.keys()].sort()).toEqual([...theirs.entries.keys()].sort());
  for (const [name, { dtype }] of theirs.entries) {
    const [a, b] = [await ours.read(name), await theirs.read(name)];
    expect([a.dtype, a.shape]).toEqual([dtype, b.shape]);
    const [x, y] = [toFloat32(a), toFloat32(b)];
    const largest = Math.max(1, ...y.map(Math.abs));
    const places = digits[dtype];
    for (let i = 0; i < y.length; i++) {
      let allowed = 2e-6 * largest;
      if (places !== undefined)
        allowed = 2 ** (Math.floor(Math.log2(Math.max(Math.abs(y[i]!), 0.01))) - places);
      if (places !== undefined && inHalves) allowed = 2 ** (1 - places) * largest;
      if (!(Math.abs(x[i]! - y[i]!) <= allowed)) expect.fail(`${name}[${i}]: ${x[i]} for ${y[i]}`);
    }
  }
  await ours.close();
  await theirs.close();
}
