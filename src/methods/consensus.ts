import { weightedSum } from "./linear.js";
import { dropByRank, dropOutliers } from "./sparsify.js";
import { flag, method, number, numbers, type Part } from "./types.js";

export interface Consensus {
  readonly weight: readonly number[];
  readonly lambda: number;
  /** Divide by the sum of the weights: of all models, or of those that agree. */
  readonly normalize: boolean;
}

/** base + λ Σ w_i τ_i: task arithmetic (Ilharco et al. 2022). */
export function addUp({ weight, lambda, normalize }: Consensus): (part: Part, out: Float32Array) => void {
  const total = weight.reduce((sum, w) => sum + w, 0);
  // As mergekit: a sum of next to nothing is not divided by.
  const scale = normalize && Math.abs(total) >= 1e-8 ? lambda / total : lambda;
  const coefficients = weight.map((w) => w * scale);
  return (part, out) => weightedSum(part, coefficients, out, part.base);
}

/**
 * base + λ Σ w_i τ_i over the models that agree with the elected sign, that of Σ w_i τ_i (0 counts as
 * positive); divided, where it is normalised, by the sum of their weights. TIES's election as mergekit
 * has it.
 */
export function electAndAdd({
  weight,
  lambda,
  normalize,
}: Consensus): (part: Part, out: Float32Array) => void {
  const [scratch, agreed] = [scratchArray(), scratchArray()];
  // Array after array rather than place after place: an engine runs such loops several times faster.
  return ({ base, inputs }, out) => {
    const [sum, share] = [scratch(out.length).fill(0), agreed(out.length).fill(0)];
    // In float32, as the reference: what cancels there must cancel here.
    for (const [i, x] of inputs.entries()) addScaled(sum, x, weight[i]);
    for (let at = 0; at < out.length; at++) sum[at] = sum[at]! >= 0 ? 1 : -1;
    out.fill(0);
    // What agrees is above 0 when it is multiplied by the elected sign. No branches: signs are as good as random.
    for (const [i, x] of inputs.entries()) {
      const w = weight[i]!;
      if (normalize) {
        for (let at = 0; at < out.length; at++) {
          const y = Math.max(0, w * x[at]! * sum[at]!);
          out[at] = out[at]! + y;
          share[at] = share[at]! + w * Math.min(1, y * 1e300);
        }
      } else {
        for (let at = 0; at < out.length; at++) out[at] = out[at]! + Math.max(0, w * x[at]! * sum[at]!);
      }
    }
    if (normalize)
      for (let at = 0; at < out.length; at++)
        out[at] = base[at]! + (lambda * sum[at]! * out[at]!) / (share[at]! || 1);
    else for (let at = 0; at < out.length; at++) out[at] = base[at]! + lambda * sum[at]! * out[at]!;
  };
}

/** An array that is kept from one part to the next. */
export function scratchArray(): (size: number) => Float32Array {
  let array = new Float32Array(0);
  return (size) => {
    if (array.length < size) array = new Float32Array(size);
    return array.length === size ? array : array.subarray(0, size);
  };
}

/** sum += weight · x, every product and sum rounded to float32. */
export function addScaled(sum: Float32Array, x: Float32Array, weight = 1): void {
  if (weight === 1) for (let at = 0; at < sum.length; at++) sum[at] = sum[at]! + x[at]!;
  else for (let at = 0; at < sum.length; at++) sum[at] = sum[at]! + Math.fround(weight * x[at]!);
}

const weight = numbers(1, "weight of each model's task vector");
const density = (value: number) => numbers(value, "part of each task vector that is kept", 0, 1);
export const lambda = (value: number) => number(value, "what the merged task vector is multiplied by");
const seed = number(0, "draws what is dropped");
const rescaled = (value: boolean) => flag(value, "rescale what is left to the same L1 norm");
const combination = (normalize: boolean, scale = 1) => ({
  weight,
  lambda: lambda(scale),
  normalize: flag(normalize, "divide by the sum of the weights"),
});
const shared = { works: "deltas", scaled: true } as const;

/** Customary grids: of sums, and the paper's for TIES's disjoint mean. */
export const sumGrid = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
export const meanGrid = [
  0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2, 2.1, 2.2, 2.3, 2.4, 2.5,
];

export const taskArithmetic = method({
  name: "task-arithmetic",
  about: "base + λ Σ task vectors (Ilharco et al. 2022)",
  ...shared,
  linear: true,
  grid: { lambda: sumGrid },
  parameters: combination(false, 0.3),
  merge: (_, values) => addUp(values),
});

const crumbs = {
  ...combination(false),
  density: density(0.9),
  gamma: numbers(0.01, "part of each task vector, the largest, that is dropped", 0, 1),
  rescaled: rescaled(false),
};
export const breadcrumbs = method({
  name: "breadcrumbs",
  about: "task vectors without their largest and smallest entries, added up (Davari & Belilovsky 2023)",
  ...shared,
  grid: { lambda: sumGrid },
  parameters: { ...crumbs, lambda: lambda(0.3) },
  treatments: () => [dropOutliers],
  merge: (_, values) => addUp(values),
});
export const breadcrumbsTies = method({
  name: "breadcrumbs-ties",
  about: "breadcrumbs with an election of signs",
  ...shared,
  grid: { lambda: sumGrid },
  parameters: { ...crumbs, lambda: lambda(0.3) },
  treatments: () => [dropOutliers],
  merge: (_, values) => electAndAdd(values),
});

const drops = {
  density: density(0.5),
  epsilon: numbers(0.15, "how far the chance to be kept moves from the density with an entry's rank", 0, 1),
  rescaled: rescaled(true),
  seed,
};
export const della = method({
  name: "della",
  about: "entries dropped by rank in their row, then an election of signs (Deep et al. 2024)",
  ...shared,
  grid: { lambda: meanGrid },
  parameters: { ...combination(true), ...drops },
  treatments: () => [dropByRank],
  merge: (_, values) => electAndAdd(values),
});
export const dellaLinear = method({
  name: "della-linear",
  about: "entries dropped by rank in their row, then added up",
  ...shared,
  grid: { lambda: sumGrid },
  parameters: { ...combination(false, 0.3), ...drops },
  treatments: () => [dropByRank],
  merge: (_, values) => addUp(values),
});
