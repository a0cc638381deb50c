import { flag, method, numbers, type Part } from "./types.js";

/** out = first + Σ coefficients_i · inputs_i (without a first: the sum alone). */
export function weightedSum({ inputs }: Part, coefficients: readonly number[], out: Float32Array, first?: Float32Array): void {
  const [c0, a] = [coefficients[0]!, inputs[0]!];
  if (first) for (let i = 0; i < out.length; i++) out[i] = first[i]! + c0 * a[i]!;
  else for (let i = 0; i < out.length; i++) out[i] = c0 * a[i]!;
  for (let n = 1; n < inputs.length; n++) {
    const [c, b] = [coefficients[n]!, inputs[n]!];
    for (let i = 0; i < out.length; i++) out[i] = out[i]! + c * b[i]!;
  }
}

/** Weights that add up to 1. */
export function shares(weight: readonly number[], name: string): number[] {
  const total = weight.reduce((sum, w) => sum + w, 0);
  if (total === 0) throw new RangeError(`${name}: the weights ${weight.join(", ")} add up to 0, and nothing can be divided by that; turn --normalize off or change them`);
  return weight.map((w) => w / total);
}

export const average = method({
  name: "average", about: "mean of the models", works: "values", baseless: true,
  parameters: {},
  merge: ({ labels }) => {
    const coefficients = labels.map(() => 1 / labels.length);
    return (part, out) => weightedSum(part, coefficients, out);
  },
});

export const linear = method({
  name: "linear", about: "weighted mean of the models (Wortsman et al. 2022)", works: "values", baseless: true,
  parameters: { weight: numbers(1, "weight of each model"), normalize: flag(true, "divide by the sum of the weights") },
  merge: ({ name }, { weight, normalize }) => {
    const coefficients = normalize ? shares(weight, name) : weight;
    return (part, out) => weightedSum(part, coefficients, out);
  },
});
