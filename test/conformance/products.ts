import { matMul, tensor2d, tensor3d, tidy, transpose, type Tensor } from "@tensorflow/tfjs-core";
import seedrandom from "seedrandom";
import { expect, test } from "vitest";
import { relativeError } from "../helpers.js";

interface Sizes {
  readonly batch: number;
  readonly rows: number;
  readonly inner: number;
  readonly columns: number;
}

function noise(size: number, seed: string): Float32Array {
  const random = seedrandom(seed);
  return Float32Array.from({ length: size }, () => 2 * random() - 1);
}

/** A · B, one after the other. */
function expectedProduct(
  a: Float32Array,
  b: Float32Array,
  { batch, rows, inner, columns }: Sizes,
): Float32Array {
  const sums = new Float64Array(batch * rows * columns);
  for (let row = 0; row < batch * rows; row++) {
    const own = Math.floor(row / rows) * inner;
    for (let i = 0; i < inner; i++) {
      for (let column = 0; column < columns; column++)
        sums[row * columns + column]! += a[row * inner + i]! * b[(own + i) * columns + column]!;
    }
  }
  return Float32Array.from(sums);
}

/** A matrix, or a stack of them: each engine has a way for either. */
const stacked = (values: Float32Array, batch: number, rows: number, columns: number): Tensor =>
  batch === 1 ? tensor2d(values, [rows, columns]) : tensor3d(values, [batch, rows, columns]);

const turned = (x: Tensor): Tensor => transpose(x, x.rank === 2 ? [1, 0] : [0, 2, 1]);

/** An engine takes a program by the sizes: long and short sums, few and many outputs, whole fours of them or not. */
export function productTests(tolerance: number): void {
  const cases = [
    [3, 64],
    [64, 33],
    [2048, 256],
    [2051, 31],
    [4096, 20],
  ].flatMap(([inner, columns]) =>
    [
      [1, 1],
      [1, 16],
      [1, 70],
      [2, 5],
    ].map(([batch, rows]) => ({ batch, rows, inner, columns }) as Sizes),
  );
  test.each(cases)("$batch × [$rows, $inner] · [$inner, $columns], either transposed", async (sizes) => {
    const { batch, rows, inner, columns } = sizes;
    const [a, b] = [noise(batch * rows * inner, "a"), noise(batch * inner * columns, "b")];
    const expected = expectedProduct(a, b, sizes);
    for (const first of [false, true]) {
      for (const second of [false, true]) {
        const product = tidy(() => {
          const [left, right] = [stacked(a, batch, rows, inner), stacked(b, batch, inner, columns)];
          return matMul(first ? turned(left) : left, second ? turned(right) : right, first, second);
        });
        const error = relativeError(await product.data(), expected);
        expect(error, `transposed: ${first}, ${second}`).toBeLessThan(tolerance);
        product.dispose();
      }
    }
  });
}
