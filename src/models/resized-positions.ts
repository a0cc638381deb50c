import { matMul, tensor2d, type Tensor2D } from "@tensorflow/tfjs-core";
import { op } from "./ops.js";

/** What PyTorch's bicubic interpolation weighs a pixel by, at a distance (a = −0.75). */
function cubicWeight(signed: number): number {
  const a = -0.75;
  const x = Math.abs(signed);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

/** A line of `from` places as one of `to`: of each new place, what it takes of the old ones, [to][from]. */
function lineShares(from: number, to: number): number[][] {
  return Array.from({ length: to }, (_, target) => {
    const centre = ((target + 0.5) * from) / to - 0.5;
    const shares = Array<number>(from).fill(0);
    for (let tap = Math.floor(centre) - 1; tap <= Math.floor(centre) + 2; tap++) {
      const place = Math.min(from - 1, Math.max(0, tap));
      shares[place] = (shares[place] ?? 0) + cubicWeight(centre - tap);
    }
    return shares;
  });
}

const known = new Map<string, Float32Array>();

/** Of each new token, what it takes of the old ones, [1 + to², 1 + from²]: the class token's stays as it is. */
function gridShares(from: number, to: number): Float32Array {
  const key = `${from} ${to}`;
  const found = known.get(key);
  if (found) return found;
  const width = 1 + from * from;
  const shares = new Float32Array((1 + to * to) * width);
  shares[0] = 1;
  const lines = lineShares(from, to);
  for (const [y, ofY] of lines.entries()) {
    for (const [x, ofX] of lines.entries()) {
      const start = (1 + y * to + x) * width + 1;
      for (const [i, a] of ofY.entries()) {
        if (a !== 0) for (const [j, b] of ofX.entries()) shares[start + i * from + j] = a * b;
      }
    }
  }
  known.set(key, shares);
  return shares;
}

/**
 * Embeddings of positions [1 + from², width] for a grid of another size, as PyTorch's bicubic interpolation makes them:
 * [1 + to², width].
 */
export function resizedPositions(positions: Tensor2D, to: number): Tensor2D {
  const from = Math.sqrt(positions.shape[0] - 1);
  if (from === to) return positions;
  return op(
    [positions],
    ([given]) => {
      const shares = tensor2d(gridShares(from, to), [1 + to * to, 1 + from * from]);
      return { value: matMul<Tensor2D>(shares, given), saved: [shares] };
    },
    (dy, [shares]) => [matMul(shares, dy, true, false)],
  );
}
