import { digitOfRank, magnitudeCounts, countMagnitudes, magnitudeOf } from "../merge/magnitudes.js";
import { method, number, type Part, type TensorReader } from "./types.js";

/** Population variance of a place over the models, in float32. */
function variances({ inputs }: Part, out: Float32Array): Float32Array {
  const k = inputs.length;
  for (let at = 0; at < inputs[0]!.length; at++) {
    let mean = 0;
    for (let i = 0; i < k; i++) mean += inputs[i]![at]! / k;
    let sum = 0;
    for (let i = 0; i < k; i++) sum += (inputs[i]![at]! - mean) ** 2;
    out[at] = sum / k;
  }
  return out.subarray(0, inputs[0]!.length);
}

/** Select: places whose variance is among the largest part of those that vary at all; of equal ones the first. */
function select(tensor: TensorReader, part: number): () => (variance: number) => boolean {
  if (part >= 1) return () => () => true;
  let buffer = new Float32Array(0);
  const room = (size: number) => (buffer.length >= size ? buffer : (buffer = new Float32Array(size)));
  const count = (upper?: number) => {
    const counts = magnitudeCounts(upper);
    let varying = 0;
    for (const p of tensor.parts()) {
      const all = variances(p, room(p.base.length));
      countMagnitudes(counts, all);
      for (let i = 0; i < all.length; i++) if (all[i] !== 0) varying++;
    }
    return { counts, varying };
  };
  const first = count();
  const kept = part <= 0 ? 0 : Math.floor(first.varying * part);
  if (kept === 0) return () => () => false;
  const upper = digitOfRank(first.counts, kept);
  const lower = digitOfRank(count(upper.digit).counts, upper.rank);
  const limit = magnitudeOf(upper.digit, lower.digit);
  return () => {
    let left = lower.rank;
    return (variance) => variance > limit || (variance === limit && left-- > 0);
  };
}

/** Sets to 0 what is not selected. */
function masked(tensor: TensorReader, part: number): () => (p: Part) => void {
  const fresh = select(tensor, part);
  return () => {
    const keep = fresh();
    return (p) => {
      if (part >= 1) return;
      const all = variances(p, new Float32Array(p.base.length));
      for (let at = 0; at < all.length; at++)
        if (!keep(all[at]!)) for (const delta of p.inputs) delta[at] = 0;
    };
  };
}

/** Calculate: each model weighs as its task vector's mean square does; all alike where there is next to nothing. */
function weights(tensor: TensorReader, mask: () => (p: Part) => void): number[] {
  const squares = tensor.labels.map(() => 0);
  const apply = mask();
  for (const p of tensor.parts()) {
    apply(p);
    p.inputs.forEach((delta, i) => {
      for (let at = 0; at < delta.length; at++) squares[i]! += delta[at]! ** 2;
    });
  }
  const means = squares.map((sum) => sum / (tensor.rows * tensor.width));
  const total = means.reduce((sum, x) => sum + x, 0);
  return means.map((x) => (total < 1e-6 ? 1 / means.length : x / total));
}

export const sce = method({
  name: "sce",
  about: "select what varies, calculate weights, erase the minority's signs (Wan et al. 2024)",
  works: "deltas",
  grid: { selectTopk: [0.1, 0.25, 0.5, 0.75, 1] },
  parameters: {
    selectTopk: number(
      1,
      "part of the entries that vary over the models, the most varied, that takes part",
      0,
      1,
    ),
  },
  merge(tensor, { selectTopk }) {
    const mask = masked(tensor, selectTopk);
    const weight = weights(tensor, mask);
    const apply = mask();
    const k = weight.length;
    return (part, out) => {
      apply(part);
      const { base, inputs } = part;
      for (let at = 0; at < out.length; at++) {
        let sum = 0;
        for (let i = 0; i < k; i++) sum = Math.fround(sum + inputs[i]![at]!);
        let [mix, share] = [0, 0];
        for (let i = 0; i < k; i++) {
          const x = inputs[i]![at]!;
          if (sum >= 0 ? x <= 0 : x >= 0) continue;
          mix += weight[i]! * x;
          share += weight[i]!;
        }
        out[at] = base[at]! + mix / Math.max(1e-6, share);
      }
    };
  },
});
