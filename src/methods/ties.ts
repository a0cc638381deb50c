import { f32 } from "../at.js";
import { addScaled, scratchFloats } from "./arrays.js";
import { density, electAndAdd, lambdaParameter, meanGrid, type Consensus } from "./consensus.js";
import { thresholdPasses, type Thresholds } from "./global.js";
import { zip } from "./inputs.js";
import { trimTensor } from "./sparsify.js";
import { method, parameter, type MergePart, type SurveyPass, type Treatment } from "./types.js";

/**
 * TIES (Yadav et al. 2023) as its authors' code has it: each task vector is trimmed to its largest
 * entries, all tensors taken together; in each place the sign of the sum is elected (where that is
 * exactly 0, the majority's over the whole vector); entries of that sign are averaged or summed.
 */

/** Rank, from the largest, of the entry that is the threshold: the authors keep |τ| ≥ the (d − ⌊d ρ⌋)-th smallest. */
export const thresholdRank = (size: number, density: number): number =>
  Math.min(size, Math.floor(size * density) + 1);

interface Density {
  readonly density: readonly number[];
}

/** Keeps what reaches the global threshold. */
export const trimModel: Treatment<Density, Thresholds> = {
  survey: thresholdPasses(({ density }: Density) => density, thresholdRank),
  treat(_, __, { thresholds }) {
    return () =>
      ({ inputs }) => {
        for (const [delta, limit] of zip(inputs, thresholds))
          for (let at = 0; at < delta.length; at++) if (Math.abs(f32(delta, at)) < limit) delta[at] = 0;
      };
  },
};

/** Σ_i τ_i of every place, in float32. */
function sumOf(inputs: readonly Float32Array[], out: Float32Array): Float32Array {
  out.fill(0);
  for (const delta of inputs) addScaled(out, delta);
  return out;
}

/**
 * The sign of most places: what a sum of exactly 0 takes. Where there are as many of either, the
 * negative (as the authors' code).
 */
export const majority: SurveyPass<unknown, { signs: number }, number> = {
  start: () => ({ signs: 0 }),
  visit(state, tensor) {
    const sumsOf = scratchFloats();
    for (const { base, inputs } of tensor.parts())
      for (const sum of sumOf(inputs, sumsOf(base.length))) state.signs += Math.sign(sum);
  },
  join: (states) => Math.sign(states.reduce((sum, { signs }) => sum + signs, 0)),
};

/** Sets to 0, in place, what does not have the sign that is elected for its place. */
export const electSigns: Treatment<unknown, number> = {
  survey: [majority],
  treat: (_, __, found) => () => {
    const sumsOf = scratchFloats();
    return ({ base, inputs }) => {
      const sum = sumOf(inputs, sumsOf(base.length));
      for (const delta of inputs) {
        for (let at = 0; at < delta.length; at++) {
          const x = f32(delta, at);
          const positive = (f32(sum, at) || found) > 0;
          if (positive ? x < 0 : x > 0) delta[at] = 0;
        }
      }
    };
  },
};

/** base + λ Σ τ_i. */
const addSum =
  (lambda: number): MergePart =>
  ({ base, inputs }, out) => {
    sumOf(inputs, out);
    for (let at = 0; at < out.length; at++) out[at] = f32(base, at) + lambda * f32(out, at);
  };

/** base + λ times the mean, in each place, of the task vectors that are not 0 there. */
export function addDisjointMean(lambda: number): MergePart {
  const countsOf = scratchFloats();
  return ({ base, inputs }, out) => {
    sumOf(inputs, out);
    const counts = countsOf(out.length).fill(0);
    for (const delta of inputs)
      for (let at = 0; at < out.length; at++) counts[at] = f32(counts, at) + Number(f32(delta, at) !== 0);
    for (let at = 0; at < out.length; at++)
      out[at] = f32(base, at) + (lambda * f32(out, at)) / (f32(counts, at) || 1);
  };
}

/** The authors' TIES, or mergekit's: how task vectors are treated, and how they are then merged. */
const tiesVariants = {
  original: {
    treatments: [trimModel, electSigns],
    merge: ({ combine, lambda }: { combine: "mean" | "sum"; lambda: number }) =>
      ({ mean: addDisjointMean, sum: addSum })[combine](lambda),
    unread: ["weight", "normalize", "rescaled"],
  },
  mergekit: {
    treatments: [trimTensor],
    merge: (values: Consensus) => electAndAdd(values),
    unread: ["combine"],
  },
};

export const tiesMethod = method({
  name: "ties",
  about: "trim, elect signs, merge what agrees (Yadav et al. 2023)",
  works: "deltas",
  scaled: true,
  grid: { lambda: meanGrid },
  parameters: {
    lambda: lambdaParameter(1),
    density: density(0.2),
    variant: parameter.choice(
      "original",
      ["original", "mergekit"],
      "trim the whole vector as the authors do, or each tensor as mergekit does",
    ),
    combine: parameter.choice(
      "mean",
      ["mean", "sum"],
      "what agrees is averaged (the paper) or summed (AdaMerging's tables); original only",
    ),
    weight: parameter.numbers(1, "weight of each model's task vector; mergekit only"),
    normalize: parameter.flag(true, "divide by the sum of the weights that agree; mergekit only"),
    rescaled: parameter.flag(false, "rescale what is left to the same L1 norm; mergekit only"),
  },
  unread: ({ variant }) => tiesVariants[variant].unread,
  treatments: ({ variant }) => tiesVariants[variant].treatments,
  merge: (_, values) => tiesVariants[values.variant].merge(values),
});
