import { at } from "../at.js";
import { scratchFloats } from "./arrays.js";
import { method, parameter, type MergePart, type TensorReader } from "./types.js";

/** How many models change each entry of a part, by more than `epsilon`. */
function countChanges(inputs: readonly Float32Array[], epsilon: number, counts: Float32Array): void {
  counts.fill(0);
  for (const x of inputs)
    for (let i = 0; i < counts.length; i++) if (Math.abs(x[i]!) > epsilon) counts[i] = counts[i]! + 1;
}

/**
 * Adds what each model changes: alone, times its factor; where several change an entry, their mean.
 * @param factors one a model
 */
function addChanges(epsilon: number, factors: readonly number[]): MergePart {
  const countsOf = scratchFloats();
  return ({ base, inputs }, out) => {
    const counts = countsOf(out.length);
    countChanges(inputs, epsilon, counts);
    const sums = new Float32Array(out.length);
    for (const [model, x] of inputs.entries()) {
      const factor = at(factors, model);
      for (let i = 0; i < out.length; i++) {
        const change = x[i]!;
        if (Math.abs(change) <= epsilon) continue;
        const count = counts[i]!;
        if (count === 1) sums[i] = sums[i]! + Math.fround(change * factor);
        else sums[i] = sums[i]! + Math.fround(change / count);
      }
    }
    for (let i = 0; i < out.length; i++) out[i] = base[i]! + sums[i]!;
  };
}

const epsilonParameter = parameter.number(1e-5, "a change of an entry that is no larger is none", 0);

export const ramMethod = method({
  name: "ram",
  about:
    "what one model alone changes is kept, what several change is averaged (Reinforced Agent Merging, 2026)",
  works: "deltas",
  parameters: { epsilon: epsilonParameter },
  merge: ({ labels }, { epsilon }) =>
    addChanges(
      epsilon,
      labels.map(() => 1),
    ),
});

/** Entries that a model changes with others, over those that it changes alone, of a whole tensor; one a model. */
function overlaps(tensor: TensorReader, epsilon: number): number[] {
  const countsOf = scratchFloats();
  const shared = tensor.labels.map(() => 0);
  const alone = tensor.labels.map(() => 0);
  for (const { inputs } of tensor.parts()) {
    const counts = countsOf(inputs[0]?.length ?? 0);
    countChanges(inputs, epsilon, counts);
    for (const [model, x] of inputs.entries()) {
      let [several, one] = [0, 0];
      for (let i = 0; i < x.length; i++) {
        if (Math.abs(x[i]!) <= epsilon) continue;
        if (counts[i] === 1) one++;
        else several++;
      }
      shared[model] = at(shared, model) + several;
      alone[model] = at(alone, model) + one;
    }
  }
  return shared.map((several, model) => several / Math.max(at(alone, model), epsilon));
}

export const ramPlusMethod = method({
  name: "ramplus-tl",
  about:
    "ram, with what a model alone changes raised as it overlaps with others, tensor by tensor (RAM+, 2026)",
  works: "deltas",
  parameters: {
    r: parameter.number(0.1, "how much an overlap raises"),
    alpha: parameter.number(0.2, "an overlap beyond this raises no more", 0),
    epsilon: epsilonParameter,
  },
  merge(tensor, { r, alpha, epsilon }) {
    const factors = overlaps(tensor, epsilon).map((rho) => 1 + r * Math.min(alpha, Math.max(0, rho)));
    return addChanges(epsilon, factors);
  },
});
