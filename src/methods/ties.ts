import { addScaled, electAndAdd, lambda, meanGrid, scratchArray } from "./consensus.js";
import { thresholdPasses, type Thresholds } from "./global.js";
import { trimTensor } from "./sparsify.js";
import { choice, flag, method, numbers, type Pass, type TensorReader, type Treatment } from "./types.js";

/**
 * TIES (Yadav et al. 2023) as its authors' code has it: each task vector is trimmed to its largest
 * entries, all tensors taken together; in each place the sign of the sum is elected (where that is
 * exactly 0, the majority's over the whole vector); entries of that sign are averaged or summed.
 */

/** Rank, from the largest, of the entry that is the threshold: the authors keep |τ| ≥ the (d − ⌊d ρ⌋)-th smallest. */
const thresholdRank = (size: number, density: number): number =>
  Math.min(size, Math.floor(size * density) + 1);

interface Density {
  readonly density: readonly number[];
}

/** Keeps what reaches the global threshold. */
export const trimModel: Treatment<Density, Thresholds> = {
  survey: thresholdPasses((size, { density }, input) => thresholdRank(size, density[input]!)),
  treat(_, __, { thresholds }) {
    return () =>
      ({ inputs }) => {
        for (const [n, delta] of inputs.entries()) {
          const limit = thresholds[n]!;
          for (let i = 0; i < delta.length; i++) if (Math.abs(delta[i]!) < limit) delta[i] = 0;
        }
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
const majority: Pass<unknown, { signs: number }, number> = {
  start: () => ({ signs: 0 }),
  visit(state, tensor) {
    const scratch = scratchArray();
    for (const { inputs } of tensor.parts()) {
      for (const sum of sumOf(inputs, scratch(inputs[0]!.length))) state.signs += Math.sign(sum);
    }
  },
  join: (states) => Math.sign(states.reduce((sum, { signs }) => sum + signs, 0)),
};

/** Sets to 0, in place, what does not have the sign that is elected for its place. */
export const electSigns: Treatment<unknown, number> = {
  survey: [majority],
  treat: (_, __, found) => () => {
    const scratch = scratchArray();
    return ({ inputs }) => {
      const sum = sumOf(inputs, scratch(inputs[0]!.length));
      for (const delta of inputs) {
        for (let at = 0; at < delta.length; at++) {
          const positive = (sum[at]! || found) > 0;
          if (positive ? delta[at]! < 0 : delta[at]! > 0) delta[at] = 0;
        }
      }
    };
  },
};

function meanOrSum(combine: "mean" | "sum", scale: number): ReturnType<typeof electAndAdd> {
  const scratch = scratchArray();
  return ({ base, inputs }, out) => {
    const counts = scratch(out.length).fill(0);
    sumOf(inputs, out);
    if (combine === "mean")
      for (const delta of inputs)
        for (let at = 0; at < out.length; at++) counts[at] = counts[at]! + (delta[at] === 0 ? 0 : 1);
    for (let at = 0; at < out.length; at++) out[at] = base[at]! + (scale * out[at]!) / (counts[at]! || 1);
  };
}

export const ties = method({
  name: "ties",
  about: "trim, elect signs, merge what agrees (Yadav et al. 2023)",
  works: "deltas",
  scaled: true,
  grid: { lambda: meanGrid },
  parameters: {
    lambda: lambda(1),
    density: numbers(0.2, "part of each task vector that is kept", 0, 1),
    variant: choice(
      "original",
      ["original", "mergekit"],
      "trim the whole vector as the authors do, or each tensor as mergekit does",
    ),
    combine: choice(
      "mean",
      ["mean", "sum"],
      "what agrees is averaged (the paper) or summed (AdaMerging's tables); original only",
    ),
    weight: numbers(1, "weight of each model's task vector; mergekit only"),
    normalize: flag(true, "divide by the sum of the weights that agree; mergekit only"),
    rescaled: flag(false, "rescale what is left to the same L1 norm; mergekit only"),
  },
  unread: ({ variant }) => (variant === "original" ? ["weight", "normalize", "rescaled"] : ["combine"]),
  treatments: ({ variant }) => (variant === "original" ? [trimModel, electSigns] : [trimTensor]),
  merge: (_: TensorReader, values) =>
    values.variant === "original" ? meanOrSum(values.combine, values.lambda) : electAndAdd(values),
});
