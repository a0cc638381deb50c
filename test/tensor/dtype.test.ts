import { expect, test } from "vitest";
import { fromFloat32, toFloat32, type FloatDType } from "../../src/tensor/dtype.js";
import { golden } from "../helpers.js";

const data = golden<{ bits: number[]; F16: number[]; BF16: number[] }>("dtypes");
const values = new Float32Array(Int32Array.from(data.bits).buffer);

test.each(["F16", "BF16"] as const)("%s is rounded to the bits torch rounds to", (dtype) => {
  const bytes = fromFloat32(values, dtype);
  expect([...new Uint16Array(bytes.buffer)]).toEqual(data[dtype]);
});

test.each(["F32", "F16", "BF16"] as FloatDType[])(
  "%s survives decoding and encoding, every finite pattern",
  (dtype) => {
    const patterns =
      dtype === "F32"
        ? new Uint8Array(values.buffer)
        : new Uint8Array(Uint16Array.from({ length: 65536 }, (_, i) => i).buffer);
    const decoded = toFloat32({ dtype, shape: [], bytes: patterns });
    const again = toFloat32({ dtype, shape: [], bytes: fromFloat32(decoded, dtype) });
    expect(again).toEqual(decoded);
    expect(decoded.some(Number.isNaN)).toBe(dtype !== "F32");
  },
);

test("bytes at an odd address are read", () => {
  const bytes = new Uint8Array(9);
  bytes.set(new Uint8Array(new Float32Array([1.5, -2]).buffer), 1);
  expect([...toFloat32({ dtype: "F32", shape: [2], bytes: bytes.subarray(1) })]).toEqual([1.5, -2]);
});
