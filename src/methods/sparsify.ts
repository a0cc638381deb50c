import { absoluteSum, scaleBy } from "./arrays.js";
import { zip } from "./inputs.js";
import { below, drawsFor } from "./random.js";
import { between, dropAll, largest, type Sparsification } from "./select.js";
import { entryCount, type TensorReader, type Treatment } from "./types.js";

/**
 * What is done so that a thinned task vector weighs as much as before: nothing, 1 / density, or the
 * ratio of L1 norms.
 */
export const rescales = ["none", "inverse", "l1"] as const;
export type Rescale = (typeof rescales)[number];

/** As mergekit: below this an L1 norm is not divided by. */
const smallestNorm = 1e-7;

/** What an input's task vector in a tensor is thinned by, and what the rest is then multiplied by. */
interface Thinning {
  readonly sparsify: Sparsification;
  readonly scale: number | "l1";
}

/**
 * A treatment made of one thinning for each input; where it is rescaled to an L1 norm, the tensor is
 * read once more.
 */
function sparsification<V>(make: (tensor: TensorReader, values: V) => readonly Thinning[]): Treatment<V> {
  return {
    treat(tensor, values) {
      const thinnings = make(tensor, values);
      const scales = scalesOf(tensor, thinnings);
      return () => {
        const fresh = zip(thinnings, scales).map(([{ sparsify }, scale]) => ({
          sparsify: sparsify?.(),
          scale,
        }));
        return ({ start, inputs }) => {
          for (const [delta, { sparsify, scale }] of zip(inputs, fresh)) {
            if (!sparsify) continue;
            sparsify(delta, start);
            scaleBy(delta, scale);
          }
        };
      };
    },
  };
}

/** The thinnings' scales: Σ|τ| before over Σ|τ| after for those that want it, 1 where either is next to nothing. */
function scalesOf(tensor: TensorReader, thinnings: readonly Thinning[]): number[] {
  const norms = thinnings.map(({ sparsify, scale }) => ({
    sparsify: scale === "l1" && sparsify?.(),
    before: 0,
    after: 0,
  }));
  if (norms.some(({ sparsify }) => sparsify)) {
    for (const { start, inputs } of tensor.parts()) {
      for (const [delta, sums] of zip(inputs, norms)) {
        if (!sums.sparsify) continue;
        sums.before += absoluteSum(delta);
        sums.sparsify(delta, start);
        sums.after += absoluteSum(delta);
      }
    }
  }
  return zip(thinnings, norms).map(([{ scale }, { before, after }]) => {
    if (scale !== "l1") return scale;
    if (before < smallestNorm || after < smallestNorm) return 1;
    return before / after;
  });
}

export interface DareValues {
  readonly dareP: readonly number[];
  readonly rescale: Rescale;
  readonly seed: number;
}

/** What DARE multiplies what it did not drop by. */
function dareScale(p: number, rescale: Rescale): number | "l1" {
  if (rescale === "l1") return "l1";
  if (rescale === "none" || p >= 1) return 1;
  return 1 / (1 - p);
}

/**
 * DARE (Yu et al. 2024): every entry is dropped with probability p; the rest is multiplied by 1 / (1 −
 * p), or as `rescale` says.
 */
export const dareTreatment = ({ dareP, rescale, seed }: DareValues): Treatment =>
  sparsification(({ name, labels }) =>
    zip(labels, dareP).map(([label, p]): Thinning => {
      if (p <= 0) return { sparsify: undefined, scale: 1 };
      const draw = drawsFor(seed, "dare", name, label);
      const limit = below(p);
      const dropAtRandom: Sparsification = () => (delta, start) => {
        // No branch: which way it went would be a coin's guess.
        for (let i = 0; i < delta.length; i++) delta[i] = delta[i]! * Number(draw(start + i) >= limit);
      };
      return { sparsify: dropAtRandom, scale: dareScale(p, rescale) };
    }),
  );

export interface DensityValues {
  readonly density: readonly number[];
  readonly rescaled: boolean;
}

interface OutlierValues extends DensityValues {
  readonly gamma: readonly number[];
}
interface RankValues extends DensityValues {
  readonly epsilon: readonly number[];
  readonly seed: number;
}

/** Thinnings with what is left rescaled to the same L1 norm, or not. */
const withScale = (sparsifications: readonly Sparsification[], rescaled: boolean): Thinning[] =>
  sparsifications.map((sparsify) => ({ sparsify, scale: rescaled ? "l1" : 1 }));

/** The largest part of each tensor is kept: exactly max(1, ⌊density · size⌋) entries (mergekit). */
export const trimTensor: Treatment<DensityValues> = sparsification(
  (tensor, { density, rescaled }: DensityValues) => {
    const size = entryCount(tensor);
    const kept = (part: number): number => {
      if (part <= 0) return 0;
      return Math.min(size, Math.max(1, Math.floor(part * size)));
    };
    return withScale(largest(tensor, density.map(kept)), rescaled);
  },
);

/**
 * Model Breadcrumbs (Davari & Belilovsky 2023): the largest ⌊γ · size⌋ and the smallest are dropped,
 * ⌊density · size⌋ are kept. Where that is more than the smallest that there are to drop, fewer of the
 * largest go (mergekit).
 */
export const dropOutliers: Treatment<OutlierValues> = sparsification(
  (tensor, { density, gamma, rescaled }: OutlierValues) => {
    const size = entryCount(tensor);
    const spans = zip(density, gamma).map(([part, outliers]) => {
      if (part >= 1) return [0, size] as const;
      const kept = Math.floor(part * size);
      const from = Math.max(0, size - kept - Math.floor(outliers * size));
      return [from, from + kept] as const;
    });
    return withScale(between(tensor, spans), rescaled);
  },
);

/** Ranks of a row by magnitude, rising from 0; of equal ones the first is the lower. */
function ranksOf(row: Float32Array): Float64Array {
  const bits = new Uint32Array(row.buffer, row.byteOffset, row.length);
  // Magnitude above, place below: one number to sort by, exact up to rows of four million.
  const keys = new Float64Array(row.length);
  for (let i = 0; i < row.length; i++) keys[i] = (bits[i]! & 0x7fffffff) * 4194304 + i;
  keys.sort();
  const ranks = new Float64Array(row.length);
  for (let r = 0; r < keys.length; r++) ranks[keys[r]! % 4194304] = r;
  return ranks;
}

/** A chance for each rank: from density − ε for the lowest of a row to density + ε. */
interface RankChances {
  readonly density: number;
  readonly epsilon: number;
}

/** Refuses chances that are none. @throws RangeError */
function checkChances({ density, epsilon }: RankChances): void {
  if (density - epsilon <= 0 || density + epsilon >= 1)
    throw new RangeError(
      "della keeps entries with a chance from density − ε to density + ε, which must lie " +
        `between 0 and 1: a density of ${density} and an ε of ${epsilon} do not`,
    );
}

const keepByRank =
  ({ density, epsilon }: RankChances, width: number, draw: (entry: number) => number): Sparsification =>
  () =>
  (delta, start) => {
    // A row of one entry has no ranks to tell apart: it is kept with the lowest probability.
    const last = Math.max(1, width - 1);
    for (let from = 0; from < delta.length; from += width) {
      const row = delta.subarray(from, from + width);
      const ranks = ranksOf(row);
      for (let i = 0; i < width; i++) {
        const probability = density - epsilon + (ranks[i]! / last) * 2 * epsilon;
        if (draw(start + from + i) >= below(probability)) row[i] = 0;
      }
    }
  };

/**
 * DELLA's MAGPRUNE (Deep et al. 2024): an entry is kept with a probability that rises with its rank in its row, from
 * density − ε to density + ε.
 */
export const dropByRank: Treatment<RankValues> = sparsification(
  ({ name, labels, width }, { density, epsilon, rescaled, seed }: RankValues) => {
    const sparsifications = zip(labels, zip(density, epsilon)).map(([label, [d, e]]): Sparsification => {
      if (d >= 1) return undefined;
      if (d <= 0) return dropAll;
      checkChances({ density: d, epsilon: e });
      return keepByRank({ density: d, epsilon: e }, width, drawsFor(seed, "della", name, label));
    });
    return withScale(sparsifications, rescaled);
  },
);
