import { countMagnitudes, digitOfRank, magnitudeCounts, magnitudeOf, type MagnitudeCounts } from "../merge/magnitudes.js";
import { sizeOf, type Part, type TensorReader } from "./types.js";

/** An entry found by its rank among magnitudes: how large it is, and where it stands among those equally large. */
export interface Found {
  readonly magnitude: number;
  /** 1 for the first of its equals, counted from the largest rank down. */
  readonly rank: number;
  /** How many are equally large. */
  readonly equals: number;
}

/** Which of a part's arrays is ranked. */
type Pick = (part: Part) => Float32Array;

/** The entries with these ranks (1 is the largest) by |x|, in two readings. */
export function ofRank(tensor: TensorReader, pick: Pick, ranks: readonly number[]): Found[] {
  const count = (upper?: number): MagnitudeCounts => {
    const counts = magnitudeCounts(upper);
    for (const part of tensor.parts()) countMagnitudes(counts, pick(part));
    return counts;
  };
  const first = count();
  const found = new Map<number, MagnitudeCounts>();
  return ranks.map((wanted) => {
    const upper = digitOfRank(first, wanted);
    const counts = found.get(upper.digit) ?? count(upper.digit);
    found.set(upper.digit, counts);
    const lower = digitOfRank(counts, upper.rank);
    return { magnitude: magnitudeOf(upper.digit, lower.digit), rank: lower.rank, equals: counts.counts[lower.digit]! };
  });
}

/** Says of entry after entry whether it is kept. */
export type Keeper = (magnitude: number) => boolean;

/** Keeps the `count` largest magnitudes; of equal ones, those that come first. */
export function largest(tensor: TensorReader, pick: Pick, count: number): () => Keeper {
  if (count >= sizeOf(tensor)) return () => () => true;
  if (count <= 0) return () => () => false;
  const [{ magnitude, rank }] = ofRank(tensor, pick, [count]) as [Found];
  return () => {
    let room = rank;
    return (m) => m > magnitude || (m === magnitude && room-- > 0);
  };
}

/** Keeps what stands at places `from` to before `to` when magnitudes are sorted rising; equal ones in the order they come. */
export function between(tensor: TensorReader, pick: Pick, from: number, to: number): () => Keeper {
  const size = sizeOf(tensor);
  if (from >= to) return () => () => false;
  const [low, high] = ofRank(tensor, pick, [size - from, size - to + 1]) as [Found, Found];
  // How many of the equals stand before the first that is kept, and up to the last.
  const [skip, take] = [low.equals - low.rank, high.equals - high.rank + 1];
  return () => {
    let [atLow, atHigh] = [0, 0];
    return (m) => {
      if (m === low.magnitude && atLow++ < skip) return false;
      if (m === high.magnitude && atHigh++ >= take) return false;
      return m >= low.magnitude && m <= high.magnitude;
    };
  };
}
