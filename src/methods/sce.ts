import { f32, f64 } from "../at.js";
import { countMagnitudes, digitOfRank, magnitudeCounts, magnitudeOf } from "../merge/magnitudes.js";
import { addScaled, scratchDoubles, scratchFloats, toSigns } from "./arrays.js";
import { zip } from "./inputs.js";
import { equalShares } from "./linear.js";
import { entryCount, method, parameter, type MergePart, type Part, type TensorReader } from "./types.js";

/** Population variance of each place over the models, in float32. What it returns is its own, and gone at the next. */
function varianceReader(): (part: Part) => Float32Array {
  const outOf = scratchFloats();
  return ({ base, inputs }) => {
    const out = outOf(base.length);
    const k = inputs.length;
    for (let at = 0; at < out.length; at++) {
      let mean = 0;
      for (const x of inputs) mean += x[at]! / k;
      let sum = 0;
      for (const x of inputs) sum += (x[at]! - mean) ** 2;
      out[at] = sum / k;
    }
    return out;
  };
}

/** Select: places whose variance is among the largest part of those that vary at all; of equal ones the first. */
function select(tensor: TensorReader, part: number): () => (variance: number) => boolean {
  const variancesOf = varianceReader();
  const count = (upper?: number) => {
    const counts = magnitudeCounts(upper);
    let varying = 0;
    for (const p of tensor.parts()) {
      const variances = variancesOf(p);
      countMagnitudes(counts, variances);
      for (let i = 0; i < variances.length; i++) if (variances[i] !== 0) varying++;
    }
    return { counts, varying };
  };
  const first = count();
  const kept = Math.floor(first.varying * part);
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
  if (part >= 1) return () => () => {};
  const fresh = select(tensor, part);
  const variancesOf = varianceReader();
  return () => {
    const keep = fresh();
    return (p) => {
      const variances = variancesOf(p);
      for (let at = 0; at < variances.length; at++)
        if (!keep(variances[at]!)) for (const delta of p.inputs) delta[at] = 0;
    };
  };
}

/** The sum with the squares of an array's entries added, one after the other. */
function addEntrySquares(sum: number, values: Float32Array): number {
  let total = sum;
  for (let at = 0; at < values.length; at++) total += f32(values, at) ** 2;
  return total;
}

/** Calculate: each model weighs as its task vector's mean square does; all alike where there is next to nothing. */
function weights(tensor: TensorReader, mask: () => (p: Part) => void): number[] {
  let squares = tensor.labels.map(() => 0);
  const apply = mask();
  for (const p of tensor.parts()) {
    apply(p);
    squares = zip(squares, p.inputs).map(([sum, delta]) => addEntrySquares(sum, delta));
  }
  const means = squares.map((sum) => sum / entryCount(tensor));
  const total = means.reduce((sum, x) => sum + x, 0);
  if (total < 1e-6) return equalShares(means);
  return means.map((x) => x / total);
}

/** Erase: base + Σ w_i τ_i / Σ w_i over the models whose entry has the sign of Σ τ_i. */
function mergeAgreeing(weight: readonly number[]): MergePart {
  const [signsOf, sumsOf, sharesOf] = [scratchFloats(), scratchDoubles(), scratchDoubles()];
  return ({ base, inputs }, out) => {
    const size = out.length;
    const signs = signsOf(size).fill(0);
    for (const delta of inputs) addScaled(signs, delta);
    toSigns(signs);
    const [sums, shares] = [sumsOf(size).fill(0), sharesOf(size).fill(0)];
    for (const [delta, w] of zip(inputs, weight)) {
      for (let at = 0; at < size; at++) {
        const x = f32(delta, at);
        if (!(x * f32(signs, at) > 0)) continue;
        sums[at] = f64(sums, at) + w * x;
        shares[at] = f64(shares, at) + w;
      }
    }
    for (let at = 0; at < size; at++)
      out[at] = f32(base, at) + f64(sums, at) / Math.max(1e-6, f64(shares, at));
  };
}

export const sceMethod = method({
  name: "sce",
  about: "select what varies, calculate weights, erase the minority's signs (Wan et al. 2024)",
  works: "deltas",
  grid: { selectTopk: [0.1, 0.25, 0.5, 0.75, 1] },
  parameters: {
    selectTopk: parameter.number(
      1,
      "part of the entries that vary over the models, the most varied, that takes part",
      0,
      1,
    ),
  },
  merge(tensor, { selectTopk }) {
    const mask = masked(tensor, selectTopk);
    const merge = mergeAgreeing(weights(tensor, mask));
    const apply = mask();
    return (part, out) => {
      apply(part);
      merge(part, out);
    };
  },
});
