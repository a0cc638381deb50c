import { f32 } from "../at.js";
import { scratchFloats, weightedSum } from "./arrays.js";
import { lambdaParameter, sumGrid } from "./consensus.js";
import { zip } from "./inputs.js";
import { method, parameter } from "./types.js";

/**
 * Consensus merging (Wang et al. 2024): a task's mask is where its own task vector is larger than `mask` times its
 * distance from the sum, |τ_i| > m |Σ τ − τ_i|; entries of the sum that few tasks' masks hold are left out.
 */
export const consensusTaMethod = method({
  name: "consensus-ta",
  about: "entries of the sum that several tasks' masks hold (Wang et al. 2024)",
  works: "deltas",
  scaled: true,
  grid: { lambda: sumGrid },
  parameters: {
    lambda: lambdaParameter(0.3),
    mask: parameter.numbers(0.4, "what a task's distance from the sum is multiplied by", 0),
    least: parameter.number(2, "tasks whose masks must hold an entry", 0),
  },
  merge(_, { lambda, mask, least }) {
    const [sumsOf, countsOf] = [scratchFloats(), scratchFloats()];
    return ({ base, inputs }, out) => {
      const [sums, counts] = [sumsOf(out.length), countsOf(out.length).fill(0)];
      weightedSum(
        inputs,
        inputs.map(() => 1),
        sums,
      );
      for (const [x, m] of zip(inputs, mask))
        for (let i = 0; i < x.length; i++)
          counts[i] = f32(counts, i) + Number(Math.abs(f32(x, i)) > Math.abs(f32(sums, i) - f32(x, i)) * m);
      for (let i = 0; i < out.length; i++)
        out[i] = f32(base, i) + lambda * f32(sums, i) * Number(f32(counts, i) >= least);
    };
  },
});
