import {
  countMagnitudes,
  digitOfRank,
  magnitudeCounts,
  magnitudeOf,
  type MagnitudeCounts,
} from "../merge/magnitudes.js";
import { sizeOf, type TensorReader } from "./types.js";

/** An entry found by its rank among magnitudes: how large it is, and where it stands among those equally large. */
export interface Found {
  readonly magnitude: number;
  /** 1 for the first of its equals, counted from the largest rank down. */
  readonly rank: number;
  /** How many are equally large. */
  readonly equals: number;
}

/**
 * The entries with these ranks (1 is the largest) by |x| in each input, in two readings of the tensor.
 * @param wanted one list of ranks an input; an empty one is not looked at
 */
export function ofRanks(tensor: TensorReader, wanted: readonly (readonly number[])[]): Found[][] {
  if (wanted.every((ranks) => ranks.length === 0)) return wanted.map(() => []);
  const upper = wanted.map(() => magnitudeCounts());
  for (const { inputs } of tensor.parts())
    inputs.forEach((x, i) => wanted[i]!.length && countMagnitudes(upper[i]!, x));
  const digits = wanted.map((ranks, i) => ranks.map((rank) => digitOfRank(upper[i]!, rank)));
  const lower = digits.map(
    (found) => new Map<number, MagnitudeCounts>(found.map(({ digit }) => [digit, magnitudeCounts(digit)])),
  );
  for (const { inputs } of tensor.parts())
    inputs.forEach((x, i) => lower[i]!.forEach((counts) => countMagnitudes(counts, x)));
  return digits.map((found, i) =>
    found.map(({ digit, rank }) => {
      const { counts } = lower[i]!.get(digit)!;
      const last = digitOfRank({ counts }, rank);
      return { magnitude: magnitudeOf(digit, last.digit), rank: last.rank, equals: counts[last.digit]! };
    }),
  );
}

/** Sets to 0, in place and part after part, what is not kept. */
export type Sparsifier = (delta: Float32Array, start: number) => void;

/** What an input's thinning is: undefined where all is kept; else a fresh one for every reading. */
export type Sparsification = (() => Sparsifier) | undefined;

const dropAll: Sparsification = () => (delta) => void delta.fill(0);

/** Keeps the `counts` largest magnitudes of each input; of equal ones, those that come first. */
export function largest(tensor: TensorReader, counts: readonly number[]): Sparsification[] {
  const size = sizeOf(tensor);
  const found = ofRanks(
    tensor,
    counts.map((count) => (count > 0 && count < size ? [count] : [])),
  );
  return counts.map((count, i) => {
    if (count >= size) return undefined;
    const limit = found[i]![0];
    if (!limit) return dropAll;
    return () => {
      const { magnitude } = limit;
      let room = limit.rank;
      return (delta) => {
        for (let at = 0; at < delta.length; at++) {
          const m = Math.abs(delta[at]!);
          if (m < magnitude || (m === magnitude && room-- <= 0)) delta[at] = 0;
        }
      };
    };
  });
}

/**
 * Keeps what stands at places `from` to before `to` when an input's magnitudes are sorted rising; equal
 * ones in their order.
 */
export function between(
  tensor: TensorReader,
  spans: readonly (readonly [from: number, to: number])[],
): Sparsification[] {
  const size = sizeOf(tensor);
  const all = ofRanks(
    tensor,
    spans.map(([from, to]) => (from < to && to - from < size ? [size - from, size - to + 1] : [])),
  );
  return spans.map(([from, to], i) => {
    if (to - from >= size) return undefined;
    const [low, high] = all[i]!;
    if (!low || !high) return dropAll;
    // How many of the equals stand before the first that is kept, and up to the last.
    const [skip, take] = [low.equals - low.rank, high.equals - high.rank + 1];
    return () => {
      let [atLow, atHigh] = [0, 0];
      return (delta) => {
        for (let at = 0; at < delta.length; at++) {
          const m = Math.abs(delta[at]!);
          const inside = m >= low.magnitude && m <= high.magnitude;
          const early = m === low.magnitude && atLow++ < skip;
          const late = m === high.magnitude && atHigh++ >= take;
          if (!inside || early || late) delta[at] = 0;
        }
      };
    };
  });
}
