import { memory } from "@tensorflow/tfjs-core";
import seedrandom from "seedrandom";
import { expect, test } from "vitest";
import { baseEnergy, baseValues, disposeBase, holdBase } from "../../src/merge/packed-base.js";
import type { BasePacking } from "../../src/merge/packing.js";
import { fromFloat32, toFloat32, type FloatDType, type HostTensor } from "../../src/tensor/dtype.js";

const [rows, width] = [5, 96];

/** Rows of very different sizes, as layers have them. */
function stored(dtype: FloatDType): HostTensor {
  const random = seedrandom("base");
  const values = Float32Array.from(
    { length: rows * width },
    (_, i) => (random() - 0.5) * 4 ** Math.floor(i / width),
  );
  return { dtype, shape: [rows, width], bytes: fromFloat32(values, dtype) };
}

/** A base on the device in fewer bits, whole and by rows. */
export function baseTests(): void {
  test.each([
    ["f32", "F32", 0],
    ["file", "BF16", 0],
    ["file", "F16", 0],
    ["file", "F32", 0],
    // Rounding to so many steps of the largest: evenly spread numbers are off by step / √12.
    ["int8", "F32", 1 / 127 / Math.sqrt(12)],
    ["int4", "BF16", 1 / 7 / Math.sqrt(12)],
  ] as const)(
    "kept as %s, a %s file: off by no more than rounding",
    async (packing: BasePacking, dtype, error) => {
      const { numTensors } = memory();
      const base = stored(dtype);
      const exact = toFloat32(base);
      const shape = { rows, width };
      const held = holdBase(base, exact, { rows: shape, shape: [rows, width] }, packing);
      const all = baseValues(held);
      const some = baseValues(held, Int32Array.of(1, 4));
      const [values, two] = [await all.data(), await some.data()];
      expect(all.shape).toEqual([rows, width]);
      const expected = [1, 4].flatMap((r) => Array.from(values.subarray(r * width, (r + 1) * width)));
      expect(Array.from(two)).toEqual(expected);
      let [off, size] = [0, 0];
      for (const [i, value] of exact.entries()) {
        off += (value - values[i]!) ** 2;
        size += value ** 2;
        // Never by more than half a step of its own row.
        const largest = Math.max(
          ...exact
            .slice(Math.floor(i / width) * width)
            .slice(0, width)
            .map(Math.abs),
        );
        expect(Math.abs(value - values[i]!)).toBeLessThanOrEqual(error * Math.sqrt(3) * largest * 1.0001);
      }
      const measured = Math.sqrt(off / size);
      // Relative to evenly spread numbers: half their largest over √3.
      expect(measured).toBeLessThanOrEqual(error * Math.sqrt(3) * 1.1);
      const energy = baseEnergy(base, packing);
      expect(Math.sqrt(energy.error / energy.norm)).toBeCloseTo(measured, 6);
      all.dispose();
      some.dispose();
      disposeBase(held);
      expect(memory().numTensors).toBe(numTensors);
    },
  );
}
