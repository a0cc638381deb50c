import { f64 } from "../at.js";
import type { Table } from "../merge/table.js";

export interface AdamWOptions {
  readonly weightDecay: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
}

/** PyTorch's defaults but for the decay, which would pull every coefficient to zero: off unless asked for. */
export const adamDefaults: AdamWOptions = { weightDecay: 0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

/** Running averages of the gradient and of its square, and the number of steps taken. */
export interface Moments {
  readonly first: Float64Array;
  readonly second: Float64Array;
  readonly step: number;
}

export const zeroMoments = (size: number): Moments => ({
  first: new Float64Array(size),
  second: new Float64Array(size),
  step: 0,
});

/**
 * One AdamW step (Loshchilov & Hutter 2019), in the order of PyTorch's: decay first, then the update with
 * bias-corrected moments, epsilon added after the root. On the host, in float64.
 */
export function adamW(
  raw: Table,
  { values: gradient }: Table,
  moments: Moments,
  { lr, beta1, beta2, epsilon, weightDecay }: AdamWOptions & { readonly lr: number },
): { raw: Table; moments: Moments } {
  const step = moments.step + 1;
  const first = moments.first.map((m, i) => beta1 * m + (1 - beta1) * f64(gradient, i));
  const second = moments.second.map((v, i) => beta2 * v + (1 - beta2) * f64(gradient, i) ** 2);
  const [correction1, correction2] = [1 - beta1 ** step, 1 - beta2 ** step];
  const values = raw.values.map(
    (w, i) =>
      w * (1 - lr * weightDecay) -
      (lr * f64(first, i)) / correction1 / (Math.sqrt(f64(second, i) / correction2) + epsilon),
  );
  return { raw: { ...raw, values }, moments: { first, second, step } };
}

export const decays = ["none", "linear", "cosine"] as const;

/** How the learning rate changes over a training. */
export interface Schedule {
  readonly steps: number;
  readonly lr: number;
  /** Steps of linear warm-up. */
  readonly warmup: number;
  /** Of the learning rate, after it. */
  readonly decay: (typeof decays)[number];
}

/**
 * Learning rate of step 0, 1, …: linear warm-up from 1/warmup, then constant or decayed to zero at
 * `steps`, one step past the last.
 */
export function learningRate(step: number, { steps, lr, warmup, decay }: Schedule): number {
  if (step < warmup) return (lr * (step + 1)) / warmup;
  const progress = (step - warmup) / Math.max(1, steps - warmup);
  if (decay === "linear") return lr * (1 - progress);
  if (decay === "cosine") return (lr * (1 + Math.cos(Math.PI * progress))) / 2;
  return lr;
}
