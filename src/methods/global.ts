import {
  countMagnitudes,
  digitOfRank,
  magnitudeCounts,
  magnitudeOf,
  type MagnitudeCounts,
} from "../merge/magnitudes.js";
import { sizeOf, type Pass, type Survey, type TensorReader } from "./types.js";

/**
 * The exact entry of one rank in each input's whole task vector, all tensors taken together, in two
 * passes and without a sort: the counts of the upper half of the magnitudes' bits, then of the lower.
 */
interface Counted {
  readonly counts: MagnitudeCounts[];
  size: number;
}
interface Digits {
  readonly digits: readonly { readonly digit: number; readonly rank: number }[];
  readonly size: number;
}

/** What the two passes come to. */
export interface Thresholds {
  /** One magnitude an input. */
  readonly thresholds: readonly number[];
  /** Entries of all tensors. */
  readonly size: number;
}

function visit(state: Counted, tensor: TensorReader): void {
  state.size += sizeOf(tensor);
  for (const { inputs } of tensor.parts())
    inputs.forEach((delta, i) => countMagnitudes(state.counts[i]!, delta));
}

function total(states: readonly Counted[]): Counted {
  const [first] = states as [Counted];
  const counts = first.counts.map(({ upper }, i) => {
    const sum = magnitudeCounts(upper);
    for (const { counts: all } of states) all[i]!.counts.forEach((n, digit) => (sum.counts[digit]! += n));
    return sum;
  });
  return { counts, size: states.reduce((sum, { size }) => sum + size, 0) };
}

/** @param rankOf from the largest, 1 on: of which entry, in a vector of so many */
export function thresholdPasses<V>(
  rankOf: (size: number, values: V, input: number) => number,
): Survey<V, Thresholds> {
  const upper: Pass<V, Counted, Digits> = {
    start: (inputs) => ({ counts: Array.from({ length: inputs }, () => magnitudeCounts()), size: 0 }),
    visit,
    join(states, values) {
      const { counts, size } = total(states);
      return { size, digits: counts.map((all, i) => digitOfRank(all, rankOf(size, values, i))) };
    },
  };
  const lower: Pass<V, Counted, Thresholds, Digits> = {
    start: (inputs) => ({ counts: Array.from({ length: inputs }, () => magnitudeCounts()), size: 0 }),
    visit(state, tensor, _, { digits }) {
      if (state.counts[0]!.upper === undefined)
        digits.forEach(({ digit }, i) => (state.counts[i] = magnitudeCounts(digit)));
      visit(state, tensor);
    },
    join(states, _, { digits, size }) {
      // A thread that saw no tensor still counts by nothing.
      const { counts } = total(states.filter(({ counts }) => counts[0]!.upper !== undefined));
      return {
        size,
        thresholds: counts.map((all, i) =>
          magnitudeOf(digits[i]!.digit, digitOfRank(all, digits[i]!.rank).digit),
        ),
      };
    },
  };
  return [upper, lower];
}
