import { weightedSum } from "./arrays.js";
import { method, parameter } from "./types.js";

/** Weights that add up to 1. */
function shares(weight: readonly number[], name: string): number[] {
  const total = weight.reduce((sum, w) => sum + w, 0);
  if (total === 0)
    throw new RangeError(
      `${name}: the weights ${weight.join(", ")} add up to 0, and nothing can be divided by ` +
        "that; turn --normalize off or change them",
    );
  return weight.map((w) => w / total);
}

/** What every input of a mean counts for. */
export const equalShares = (inputs: { readonly length: number }): number[] =>
  Array.from({ length: inputs.length }, () => 1 / inputs.length);

export const averageMethod = method({
  name: "average",
  about: "mean of the models",
  works: "values",
  baseless: true,
  linear: true,
  parameters: {},
  merge: ({ labels }) => {
    const coefficients = equalShares(labels);
    return ({ inputs }, out) => weightedSum(inputs, coefficients, out);
  },
});

export const linearMethod = method({
  name: "linear",
  about: "weighted mean of the models (Wortsman et al. 2022)",
  works: "values",
  baseless: true,
  linear: true,
  parameters: {
    weight: parameter.numbers(1, "weight of each model"),
    normalize: parameter.flag(true, "divide by the sum of the weights"),
  },
  changesEqual: ({ normalize }) => !normalize,
  merge: ({ name }, { weight, normalize }) => {
    const coefficients = normalize ? shares(weight, name) : weight;
    return ({ inputs }, out) => weightedSum(inputs, coefficients, out);
  },
});
