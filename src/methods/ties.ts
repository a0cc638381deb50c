/**
 * TIES (Yadav et al. 2023), as the authors' code does it: every task vector is trimmed to its largest entries, all
 * tensors taken together; in each place the sign of the sum is elected; entries of that sign are averaged (disjoint
 * mean). Written for streams: what is global comes in as numbers (thresholds, the majority sign).
 */

/** Rank, from the largest, of the entry that is the threshold: the authors keep |τ| ≥ the (d − int(d ρ))-th smallest. */
export const thresholdRank = (size: number, density: number): number => Math.min(size, Math.floor(size * density) + 1);

/** Σ over places of the sign of Σ_i trimmed τ_i: its own sign is the majority's, which a sum of exactly 0 takes. */
export function signSum(deltas: readonly Float32Array[], thresholds: readonly number[]): number {
  let total = 0;
  for (let at = 0; at < deltas[0]!.length; at++) total += Math.sign(trimmedSum(deltas, thresholds, at));
  return total;
}

function trimmedSum(deltas: readonly Float32Array[], thresholds: readonly number[], at: number): number {
  let sum = 0;
  for (let i = 0; i < deltas.length; i++) {
    const x = deltas[i]![at]!;
    if (Math.abs(x) >= thresholds[i]!) sum = Math.fround(sum + x);
  }
  return sum;
}

/** The disjoint mean of a tensor's trimmed task vectors, [N]: what is added to the base, times λ. */
export function tiesMean(deltas: readonly Float32Array[], thresholds: readonly number[], majority: number): Float32Array {
  const out = new Float32Array(deltas[0]!.length);
  for (let at = 0; at < out.length; at++) {
    const sign = Math.sign(trimmedSum(deltas, thresholds, at)) || majority;
    let [sum, count] = [0, 0];
    for (let i = 0; i < deltas.length; i++) {
      const x = deltas[i]![at]!;
      if (Math.abs(x) < thresholds[i]! || x * sign <= 0) continue;
      sum += x;
      count++;
    }
    out[at] = sum / Math.max(1, count);
  }
  return out;
}
