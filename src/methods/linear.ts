import { flag, method, numbers, type Part } from "./types.js";

/** out = first + Σ coefficients_i · inputs_i (without a first: the sum alone). */
export function weightedSum(
  { inputs }: Part,
  coefficients: readonly number[],
  out: Float32Array,
  first?: Float32Array,
): void {
  if (first) out.set(first);
  else out.fill(0);
  // Four at a time: `out` is read and written that much less often.
  for (let n = 0; n < inputs.length; n += 4) {
    const [a, b = a, c = a, d = a] = inputs.slice(n, n + 4) as [
      Float32Array,
      Float32Array?,
      Float32Array?,
      Float32Array?,
    ];
    const [p, q = 0, r = 0, s = 0] = coefficients.slice(n, n + 4) as [number, number?, number?, number?];
    const left = inputs.length - n;
    if (left === 1) for (let i = 0; i < out.length; i++) out[i] = out[i]! + p * a[i]!;
    else if (left === 2) for (let i = 0; i < out.length; i++) out[i] = out[i]! + p * a[i]! + q * b[i]!;
    else if (left === 3)
      for (let i = 0; i < out.length; i++) out[i] = out[i]! + p * a[i]! + q * b[i]! + r * c[i]!;
    else
      for (let i = 0; i < out.length; i++) out[i] = out[i]! + p * a[i]! + q * b[i]! + r * c[i]! + s * d[i]!;
  }
}

/** Weights that add up to 1. */
export function shares(weight: readonly number[], name: string): number[] {
  const total = weight.reduce((sum, w) => sum + w, 0);
  if (total === 0)
    throw new RangeError(
      `${name}: the weights ${weight.join(", ")} add up to 0, and nothing can be divided by ` +
        "that; turn --normalize off or change them",
    );
  return weight.map((w) => w / total);
}

export const average = method({
  name: "average",
  about: "mean of the models",
  works: "values",
  baseless: true,
  linear: true,
  parameters: {},
  merge: ({ labels }) => {
    const coefficients = labels.map(() => 1 / labels.length);
    return (part, out) => weightedSum(part, coefficients, out);
  },
});

export const linear = method({
  name: "linear",
  about: "weighted mean of the models (Wortsman et al. 2022)",
  works: "values",
  baseless: true,
  linear: true,
  parameters: {
    weight: numbers(1, "weight of each model"),
    normalize: flag(true, "divide by the sum of the weights"),
  },
  merge: ({ name }, { weight, normalize }) => {
    const coefficients = normalize ? shares(weight, name) : weight;
    return (part, out) => weightedSum(part, coefficients, out);
  },
});
