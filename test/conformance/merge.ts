import { grads, memory, mul, sum, tensor1d, tensor2d, tidy, type Tensor1D } from "@tensorflow/tfjs-core";
import { describe, expect, test } from "vitest";
import {
  disposeDeltas,
  uploadDeltas,
  mergeForward,
  mergeGradient,
  mergeTensor,
  type Deltas,
} from "../../src/merge/op.js";
import { packRows, type Packing } from "../../src/merge/packing.js";
import type { RowShape } from "../../src/tensor/dtype.js";
import { golden, relativeError } from "../helpers.js";

interface Packed {
  merged: number[];
  products: number[];
}
interface GoldenPacking {
  rows: number;
  width: number;
  stack: number[];
  base: number[];
  dTheta: number[];
  coefficients: number[];
  f32: Packed;
  bf16: Packed;
  int8: Packed;
}

/** The packings that golden values were made for; sparse with nothing trimmed must equal float32. */
const cases = [
  ["f32", "f32"],
  ["bf16", "bf16"],
  ["int8", "int8"],
  ["sparse", "f32"],
] as const;

function packDeltas(
  stack: Float32Array,
  experts: readonly number[],
  shape: RowShape,
  packing: Packing,
): Deltas {
  const size = shape.rows * shape.width;
  return uploadDeltas(
    experts.map((_, i) => packRows(stack.subarray(i * size, (i + 1) * size), shape, packing)),
    experts,
    shape,
  );
}

/** The merge op in every packing, value and gradient, against float64. */
export function mergeTests(): void {
  const goldens = golden<GoldenPacking[]>("packing");
  describe.each(cases)("%s", (packing, expected) => {
    test.each(goldens.map((g) => [`${g.rows}×${g.width}`, g] as const))(
      "equals the sum written out, value and gradient, at %s",
      async (_, g) => {
        const experts = [0, 1, 2];
        const deltas = packDeltas(Float32Array.from(g.stack), experts, g, packing);
        const [base, dTheta, c] = [
          tensor2d(g.base, [g.rows, g.width]),
          tensor2d(g.dTheta, [g.rows, g.width]),
          tensor1d(g.coefficients),
        ];
        const merged = mergeForward(base, deltas, c);
        expect(merged.shape).toEqual([g.rows, g.width]);
        expect(relativeError(await merged.data(), g[expected].merged)).toBeLessThan(1e-6);
        const products = mergeGradient(dTheta, deltas);
        expect(relativeError(await products.data(), g[expected].products)).toBeLessThan(2e-6);
        const viaTape = tidy(
          () => grads((row) => mergeTensor(base, deltas, row as Tensor1D))([c], dTheta)[0]!,
        );
        expect(relativeError(await viaTape.data(), g[expected].products)).toBeLessThan(2e-6);
        disposeDeltas(deltas);
        [base, dTheta, c, merged, products, viaTape].forEach((t) => t.dispose());
      },
    );
  });

  test("between forward and backward nothing of size k × N is kept", () => {
    const held = (k: number): number => {
      const n = 4096;
      const experts = Array.from({ length: k }, (_, i) => i);
      const deltas = packDeltas(new Float32Array(k * n), experts, { rows: 1, width: n }, "f32");
      const [base, row] = [tensor1d(new Float32Array(n)), tensor1d(new Float32Array(k))];
      let bytes = 0;
      const before = memory().numBytes;
      const [gradient] = grads((c) => {
        const merged = mergeTensor(base, deltas, c as Tensor1D);
        bytes = memory().numBytes - before;
        return sum(mul(merged, 1));
      })([row]);
      disposeDeltas(deltas);
      [base, row, gradient!].forEach((t) => t.dispose());
      return bytes;
    };
    expect(held(16) - held(2)).toBeLessThan(1024);
  });
}
