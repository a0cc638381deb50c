import { drawsFor, below } from "./random.js";
import { between, largest, type Sparsification } from "./select.js";
import { sizeOf, type TensorReader, type Treatment } from "./types.js";

/**
 * What is done so that a thinned task vector weighs as much as before: nothing, 1 / density, or the
 * ratio of L1 norms.
 */
export const rescales = ["none", "inverse", "l1"] as const;
export type Rescale = (typeof rescales)[number];

/** As mergekit: below this an L1 norm is not divided by. */
const smallestNorm = 1e-7;

function absoluteSum(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += Math.abs(values[i]!);
  return sum;
}

/**
 * A treatment made of one thinning for each input; where it is rescaled to an L1 norm, the tensor is
 * read once more.
 */
function sparsification<V>(
  make: (tensor: TensorReader, values: V) => readonly Sparsification[],
  rescaled: (values: V, input: number) => number | "l1",
): Treatment<V> {
  return {
    treat(tensor, values) {
      const fresh = make(tensor, values);
      const scales = fresh.map((one, input) => (one ? rescaled(values, input) : 1));
      const measured = scales.includes("l1") ? l1Scales(tensor, fresh, scales) : (scales as number[]);
      return () => {
        const sparsifiers = fresh.map((one) => one?.());
        return ({ start, inputs }) => {
          for (const [input, sparsify] of sparsifiers.entries()) {
            if (!sparsify) continue;
            const delta = inputs[input]!;
            sparsify(delta, start);
            const scale = measured[input]!;
            if (scale !== 1) for (let i = 0; i < delta.length; i++) delta[i]! *= scale;
          }
        };
      };
    },
  };
}

/** Σ|τ| before over Σ|τ| after, for the inputs that want it; 1 where either is next to nothing. */
function l1Scales(
  tensor: TensorReader,
  fresh: readonly Sparsification[],
  scales: readonly (number | "l1")[],
): number[] {
  const sparsifiers = fresh.map((one) => one?.());
  const [before, after] = [scales.map(() => 0), scales.map(() => 0)];
  for (const { start, inputs } of tensor.parts()) {
    for (const [input, sparsify] of sparsifiers.entries()) {
      if (scales[input] !== "l1") continue;
      before[input]! += absoluteSum(inputs[input]!);
      sparsify!(inputs[input]!, start);
      after[input]! += absoluteSum(inputs[input]!);
    }
  }
  return scales.map((scale, i) => {
    if (scale !== "l1") return scale;
    const isTiny = before[i]! < smallestNorm || after[i]! < smallestNorm;
    return isTiny ? 1 : before[i]! / after[i]!;
  });
}

export interface DareValues {
  readonly dareP: readonly number[];
  readonly rescale: Rescale;
  readonly seed: number;
}

/**
 * DARE (Yu et al. 2024): every entry is dropped with probability p; the rest is multiplied by 1 / (1 −
 * p), or as `rescale` says.
 */
export const dare: Treatment<DareValues> = sparsification<DareValues>(
  ({ name, labels }, { dareP, seed }) =>
    labels.map((label, input): Sparsification => {
      const p = dareP[input]!;
      if (p <= 0) return undefined;
      const draw = drawsFor(seed, "dare", name, label);
      const limit = below(p);
      return () => (delta, start) => {
        // No branch: which way it went would be a coin's guess.
        for (let i = 0; i < delta.length; i++) delta[i] = delta[i]! * Number(draw(start + i) >= limit);
      };
    }),
  ({ dareP, rescale }, input) => {
    if (rescale === "l1") return "l1";
    return rescale === "inverse" && dareP[input]! < 1 ? 1 / (1 - dareP[input]!) : 1;
  },
);

export interface DensityValues {
  readonly density: readonly number[];
  readonly rescaled?: boolean;
}

interface OutlierValues extends DensityValues {
  readonly gamma: readonly number[];
}
interface RankValues extends DensityValues {
  readonly epsilon: readonly number[];
  readonly seed: number;
}

const l1Or1 = ({ rescaled }: { readonly rescaled?: boolean }): 1 | "l1" => (rescaled ? "l1" : 1);

/** The largest part of each tensor is kept: exactly max(1, ⌊density · size⌋) entries (mergekit). */
export const trimTensor: Treatment<DensityValues> = sparsification<DensityValues>((tensor, { density }) => {
  const size = sizeOf(tensor);
  const kept = (part: number): number => {
    if (part <= 0) return 0;
    return part >= 1 ? size : Math.max(1, Math.floor(part * size));
  };
  return largest(tensor, density.map(kept));
}, l1Or1);

/**
 * Model Breadcrumbs (Davari & Belilovsky 2023): the largest ⌊γ · size⌋ and the smallest are dropped,
 * ⌊density · size⌋ are kept. Where that is more than the smallest that there are to drop, fewer of the
 * largest go (mergekit).
 */
export const dropOutliers: Treatment<OutlierValues> = sparsification<OutlierValues>(
  (tensor, { density, gamma }) => {
    const size = sizeOf(tensor);
    return between(
      tensor,
      density.map((part, i) => {
        if (part >= 1) return [0, size];
        const kept = Math.floor(part * size);
        const from = Math.max(0, size - kept - Math.floor(gamma[i]! * size));
        return [from, from + kept];
      }),
    );
  },
  l1Or1,
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

/**
 * DELLA's MAGPRUNE (Deep et al. 2024): an entry is kept with a probability that rises with its rank in its row, from
 * density − ε to density + ε.
 */
export const dropByRank: Treatment<RankValues> = sparsification<RankValues>(
  ({ name, labels, width }, { density, epsilon, seed }) =>
    labels.map((label, input): Sparsification => {
      const [d, e] = [density[input]!, epsilon[input]!];
      if (d >= 1) return undefined;
      if (d > 0 && (d - e <= 0 || d + e >= 1))
        throw new RangeError(
          "della keeps entries with a chance from density − ε to density + ε, which must lie " +
            `between 0 and 1: a density of ${d} and an ε of ${e} do not`,
        );
      const draw = drawsFor(seed, "della", name, label);
      return () => (delta, start) => {
        for (let from = 0; from < delta.length; from += width) {
          const row = delta.subarray(from, from + width);
          const ranks = ranksOf(row);
          for (let i = 0; i < width; i++) {
            // A row of one entry has no ranks to tell apart: it is kept with the lowest probability.
            const probability = d <= 0 ? 0 : d - e + (width > 1 ? ranks[i]! / (width - 1) : 0) * 2 * e;
            if (draw(start + from + i) >= below(probability)) row[i] = 0;
          }
        }
      };
    }),
  l1Or1,
);
