import { grads, memory, mul, sum, tensor1d, tensor2d, tidy, type Tensor1D } from "@tensorflow/tfjs-core";
import { describe, expect, test } from "vitest";
import { disposeDeltas, packDeltas, packings } from "../../src/merge/deltas.js";
import { mergeForward, mergeGradient, mergeRows, mergeTensor } from "../../src/merge/op.js";
import { golden, relativeError } from "../helpers.js";

interface Packed { merged: number[]; products: number[] }
interface GoldenPacking { rows: number; width: number; stack: number[]; base: number[]; dTheta: number[]; coefficients: number[]; f32: Packed; bf16: Packed; int8: Packed }

/** The merge op in every packing, value and gradient, against float64. */
export function mergeTests(): void {
  const cases = golden<GoldenPacking[]>("packing");
  describe.each(packings)("%s", (packing) => {
    test.each(cases.map((g) => [`${g.rows}×${g.width}`, g] as const))("equals the sum written out, value and gradient, at %s", async (_, g) => {
      const experts = [0, 1, 2];
      const deltas = packDeltas(Float32Array.from(g.stack), experts, g.rows, g.width, packing);
      const [base, dTheta, c] = [tensor2d(g.base, [g.rows, g.width]), tensor2d(g.dTheta, [g.rows, g.width]), tensor1d(g.coefficients)];
      const merged = mergeForward(base, deltas, c);
      expect(merged.shape).toEqual([g.rows, g.width]);
      expect(relativeError(await merged.data(), g[packing].merged)).toBeLessThan(1e-6);
      const products = mergeGradient(dTheta, deltas);
      expect(relativeError(await products.data(), g[packing].products)).toBeLessThan(2e-6);
      const viaTape = tidy(() => grads((row) => mergeTensor(base, deltas, row as Tensor1D))([c], dTheta)[0]!);
      expect(relativeError(await viaTape.data(), g[packing].products)).toBeLessThan(2e-6);
      disposeDeltas(deltas);
      [base, dTheta, c, merged, products, viaTape].forEach((t) => t.dispose());
    });

    test("some rows of a table are merged as the whole table would be", async () => {
      const g = cases.find(({ rows }) => rows === 5)!;
      const deltas = packDeltas(Float32Array.from(g.stack), [0, 1, 2], g.rows, g.width, packing);
      const [base, c, ids] = [tensor2d(g.base, [g.rows, g.width]), tensor1d(g.coefficients), tensor1d([0, 3, 4], "int32")];
      const pick = (values: number[]) => [0, 3, 4].flatMap((r) => values.slice(r * g.width, (r + 1) * g.width));
      const dy = tensor2d(pick(g.dTheta), [3, g.width]);
      const { value, gradient } = tidy(() => ({ value: mergeRows(base, deltas, c, ids), gradient: grads((row) => mergeRows(base, deltas, row as Tensor1D, ids))([c], dy)[0]! }));
      expect(relativeError(await value.data(), pick(g[packing].merged))).toBeLessThan(1e-6);
      // The same through the whole table, with no gradient from the other rows.
      const masked = tensor2d(g.dTheta.map((x, i) => ([0, 3, 4].includes(Math.floor(i / g.width)) ? x : 0)), [g.rows, g.width]);
      const whole = mergeGradient(masked, deltas);
      expect(relativeError(await gradient.data(), Array.from(await whole.data()))).toBeLessThan(2e-6);
      disposeDeltas(deltas);
      [base, c, ids, dy, value, gradient, masked, whole].forEach((t) => t.dispose());
    });
  });

  test("between forward and backward nothing of size k × N is kept", () => {
    const held = (k: number): number => {
      const n = 4096;
      const experts = Array.from({ length: k }, (_, i) => i);
      const deltas = packDeltas(new Float32Array(k * n), experts, 1, n, "f32");
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
