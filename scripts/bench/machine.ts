/** What matrix products and copies give an engine of ours: beside it, torch_step.py measures the same in PyTorch. */
import {
  concat,
  matMul,
  ones,
  randomUniform,
  reshape,
  slice,
  tidy,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { runningOn, type EngineName } from "../../src/backend/index.js";
import { median } from "../../src/report/rows.js";
import type { MachineSpeeds } from "./answers.js";

const rounds = 5;
const mebibyte = 2 ** 20;

/** Calls before the clock is read: of a card many, so that waiting for it is a small part. */
export function callsOn(engine: EngineName, onCard: number): number {
  const isCard = ["webgpu", "node-gpu"].includes(engine) && !runningOn()?.emulated;
  return isCard ? onCard : 1;
}

/** Waits for a tensor: engines run their calls in order, so that when one number of it is there, all are done. */
export async function wait(tensor: Tensor): Promise<void> {
  const end = tidy(() => slice(reshape(tensor, [-1]), [0], [1]));
  await end.data();
  end.dispose();
}

/** Billions a second of what a call has `amount` of: the median of some rounds, after one that is not counted. */
async function rate(amount: number, calls: number, work: () => Tensor): Promise<number> {
  const times: number[] = [];
  for (let round = 0; round <= rounds; round++) {
    const start = performance.now();
    for (let call = 1; call < calls; call++) work().dispose();
    const last = work();
    await wait(last);
    times.push((performance.now() - start) / calls);
    last.dispose();
  }
  return amount / median(times.slice(1)) / 1e6;
}

async function productSpeed(calls: number, [n, m, k]: readonly [number, number, number]): Promise<number> {
  const [a, b]: [Tensor2D, Tensor2D] = [randomUniform([n, m]), randomUniform([m, k])];
  const speed = await rate(2 * n * m * k, calls, () => matMul(a, b));
  a.dispose();
  b.dispose();
  return speed;
}

/** GB/s, read and written, of joining two halves to a tensor of some size: tfjs has no plainer copy. */
async function joinSpeed(calls: number, bytes: number): Promise<number> {
  const halves = [0, 1].map(() => ones([bytes / 8]));
  const speed = await rate(2 * bytes, calls, () => concat(halves));
  for (const half of halves) half.dispose();
  return speed;
}

/** GB/s, read and written, of copying so many bytes from one place in memory to another, with one thread. */
export function copySpeed(bytes: number): number {
  const [from, to] = [new Float32Array(bytes / 4).fill(1), new Float32Array(bytes / 4)];
  const times = Array.from({ length: rounds + 1 }, () => {
    const start = performance.now();
    to.set(from);
    return performance.now() - start;
  });
  return (2 * bytes) / median(times.slice(1)) / 1e6;
}

/** @param tokens rows of the model's own product */
export async function measureMachine(
  engine: EngineName,
  tokens: number,
  width: number,
): Promise<MachineSpeeds> {
  const calls = callsOn(engine, 32);
  return {
    square: await productSpeed(calls, [1024, 1024, 1024]),
    model: await productSpeed(calls, [tokens, width, 4 * width]),
    joined: await joinSpeed(calls, 16 * mebibyte),
    joinedLarge: await joinSpeed(calls, 64 * mebibyte),
    copied: copySpeed(64 * mebibyte),
  };
}
