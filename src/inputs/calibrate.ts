import { matMul, reshape, slice, tensor1d, tensor2d, tidy, zeros, type Rank } from "@tensorflow/tfjs-core";
import { uploadDeltas, mergeForward } from "../merge/op.js";
import { packRows } from "../merge/packing.js";
import { subtract } from "../merge/source.js";
import type { Rates } from "../plan/memory.js";

/** Seconds of the fastest of three runs: the first warms up, and a busy machine slows some. */
async function fastest(work: () => Promise<void>): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < 3; i++) {
    const start = performance.now();
    await work();
    best = Math.min(best, (performance.now() - start) / 1000);
  }
  return best;
}

/** Measures, in well under a second, what a plan's times are made of. Rough: within a factor of two or so. */
export async function calibrate(): Promise<Rates> {
  const size = 512;
  const [a, b] = [zeros<Rank.R2>([size, size]), zeros<Rank.R2>([size, size])];
  const product = await fastest(async () => {
    const out = tidy(() => matMul(a, b));
    await out.data();
    out.dispose();
  });
  const [k, n] = [4, 2 ** 18];
  const host = new Float32Array(k * n).fill(0.1);
  const vectors = Array.from({ length: k }, (_, i) =>
    packRows(host.subarray(i * n, (i + 1) * n), { rows: n / 512, width: 512 }, "f32"),
  );
  const upload = await fastest(async () => {
    const { data } = uploadDeltas(vectors, [0, 1, 2, 3], { rows: n / 512, width: 512 });
    // Engines upload when a tensor is first used.
    const used = tidy(() => slice(reshape(data, [-1]), [0], [1]));
    await used.data();
    data.dispose();
    used.dispose();
  });
  const deltas = uploadDeltas(vectors, [0, 1, 2, 3], { rows: n / 512, width: 512 });
  const [base, c] = [tensor2d(host.subarray(0, n), [n / 512, 512]), tensor1d([0.1, 0.2, 0.3, 0.4])];
  const merge = await fastest(async () => {
    const out = mergeForward(base, deltas, c);
    const end = tidy(() => slice(reshape(out, [-1]), [0], [1]));
    await end.data();
    out.dispose();
    end.dispose();
  });
  for (const t of [a, b, deltas.data, base, c]) t.dispose();
  const minus = await fastest(async () => void subtract(host, host));
  // Files that were just checked lie in the page cache; others come at the disk's own speed, which is not measured.
  const cached = 2e9;
  return {
    flops: (2 * size ** 3) / product,
    upload: (4 * k * n) / upload,
    merge: (4 * n * (k + 2)) / merge,
    read: 1 / (1 / cached + minus / (4 * k * n)),
  };
}
