import {
  addCounts,
  countMagnitudes,
  digitOfRank,
  magnitudeCounts,
  magnitudeOf,
  type MagnitudeCounts,
} from "../merge/magnitudes.js";
import { at } from "../at.js";
import { zip } from "./inputs.js";
import { entryCount, type Survey, type SurveyPass, type TensorReader } from "./types.js";

/**
 * The exact entry of one rank in each input's whole task vector, all tensors taken together, in two
 * passes and without a sort: the counts of the upper half of the magnitudes' bits, then of the lower.
 */
interface Counted {
  /** One an input. */
  counts: readonly MagnitudeCounts[];
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
  state.size += entryCount(tensor);
  for (const { inputs } of tensor.parts())
    for (const [i, delta] of inputs.entries()) countMagnitudes(at(state.counts, i), delta);
}

/** Counts of all threads together. */
const total = (states: readonly Counted[]): readonly MagnitudeCounts[] =>
  states
    .map(({ counts }) => counts)
    .reduce((sum, counts) => zip(sum, counts).map(([a, b]) => addCounts(a, b)));

/**
 * @param valuesOf the parameter that the rank depends on, one number an input
 * @param rankOf from the largest, 1 on: of which entry, in a vector of so many
 */
export function thresholdPasses<V>(
  valuesOf: (values: V) => readonly number[],
  rankOf: (size: number, value: number) => number,
): Survey<V, Thresholds> {
  const upper: SurveyPass<V, Counted, Digits> = {
    start: (inputs) => ({ counts: Array.from({ length: inputs }, () => magnitudeCounts()), size: 0 }),
    visit,
    join(states, values) {
      const size = states.reduce((sum, state) => sum + state.size, 0);
      const digits = zip(total(states), valuesOf(values)).map(([counts, value]) =>
        digitOfRank(counts, rankOf(size, value)),
      );
      return { size, digits };
    },
  };
  const lower: SurveyPass<V, Counted, Thresholds, Digits> = {
    start: () => ({ counts: [], size: 0 }),
    visit(state, tensor, _, { digits }) {
      if (state.counts.length === 0) state.counts = digits.map(({ digit }) => magnitudeCounts(digit));
      visit(state, tensor);
    },
    join(states, _, { digits, size }) {
      // A thread that saw no tensor counted nothing.
      const counts = total(states.filter((state) => state.counts.length > 0));
      const thresholds = zip(digits, counts).map(([{ digit, rank }, lower]) =>
        magnitudeOf(digit, digitOfRank(lower, rank).digit),
      );
      return { size, thresholds };
    },
  };
  return [upper, lower];
}
