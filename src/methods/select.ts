import { f64, lookUp } from "../at.js";
import { countMagnitudes, digitOfRank, magnitudeCounts, magnitudeOf } from "../merge/magnitudes.js";
import { zip } from "./inputs.js";
import { entryCount, type TensorReader } from "./types.js";

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
  const upper = wanted.map((ranks) => ({ ranks, counts: magnitudeCounts() }));
  for (const { inputs } of tensor.parts())
    for (const [x, { ranks, counts }] of zip(inputs, upper)) if (ranks.length) countMagnitudes(counts, x);
  const lower = upper.map(({ ranks, counts }) => {
    const digits = ranks.map((rank) => digitOfRank(counts, rank));
    return { digits, counts: new Map(digits.map(({ digit }) => [digit, magnitudeCounts(digit)])) };
  });
  for (const { inputs } of tensor.parts())
    for (const [x, { counts }] of zip(inputs, lower))
      for (const ofDigit of counts.values()) countMagnitudes(ofDigit, x);
  return lower.map(({ digits, counts }) =>
    digits.map(({ digit, rank }) => {
      const ofDigit = lookUp(counts, digit);
      const last = digitOfRank(ofDigit, rank);
      return {
        magnitude: magnitudeOf(digit, last.digit),
        rank: last.rank,
        equals: f64(ofDigit.counts, last.digit),
      };
    }),
  );
}

/** Sets to 0, in place and part after part, what is not kept. */
export type Sparsifier = (delta: Float32Array, start: number) => void;

/** What an input's thinning is: undefined where all is kept; else a fresh one for every reading. */
export type Sparsification = (() => Sparsifier) | undefined;

export const dropAll = (): Sparsifier => (delta) => void delta.fill(0);

/** Keeps the `counts` largest magnitudes of each input; of equal ones, those that come first. */
export function largest(tensor: TensorReader, counts: readonly number[]): Sparsification[] {
  const size = entryCount(tensor);
  const found = ofRanks(
    tensor,
    counts.map((count) => [count].filter((rank) => rank > 0 && rank < size)),
  );
  return zip(counts, found).map(([count, [limit]]) => {
    if (count >= size) return undefined;
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
  const size = entryCount(tensor);
  const ranks = spans.map(([from, to]) => {
    if (from >= to || to - from >= size) return [];
    return [size - from, size - to + 1];
  });
  return zip(spans, ofRanks(tensor, ranks)).map(([[from, to], [low, high]]) => {
    if (to - from >= size) return undefined;
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
