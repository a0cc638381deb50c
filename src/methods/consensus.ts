import { addScaled, scratchFloats, toSigns, weightedSum } from "./arrays.js";
import { zip } from "./inputs.js";
import { dropByRank, dropOutliers } from "./sparsify.js";
import { method, parameter, type MergePart } from "./types.js";

export interface Consensus {
  readonly weight: readonly number[];
  readonly lambda: number;
  /** Divide by the sum of the weights: of all models, or of those that agree. */
  readonly normalize: boolean;
}

/** base + λ Σ w_i τ_i: task arithmetic (Ilharco et al. 2022). */
export function addUp({ weight, lambda, normalize }: Consensus): MergePart {
  const total = weight.reduce((sum, w) => sum + w, 0);
  let scale = lambda;
  // As mergekit: a sum of next to nothing is not divided by.
  if (normalize && Math.abs(total) >= 1e-8) scale /= total;
  const coefficients = weight.map((w) => w * scale);
  return ({ base, inputs }, out) => weightedSum(inputs, coefficients, out, base);
}

/** The sign of Σ w_i τ_i in every place, 1 or −1; 0 counts as positive. */
function elect(inputs: readonly Float32Array[], weight: readonly number[], signs: Float32Array): void {
  signs.fill(0);
  // In float32, as the reference: what cancels there must cancel here.
  for (const [x, w] of zip(inputs, weight)) addScaled(signs, x, w);
  toSigns(signs);
}

/**
 * base + λ Σ w_i τ_i over the models that agree with the elected sign; divided, where it is normalised, by the sum of
 * their weights. TIES's election as mergekit has it.
 */
export function electAndAdd({ weight, lambda, normalize }: Consensus): MergePart {
  const [signsOf, sharesOf] = [scratchFloats(), scratchFloats()];
  // Array after array rather than place after place: an engine runs such loops several times faster.
  return ({ base, inputs }, out) => {
    const signs = signsOf(out.length);
    elect(inputs, weight, signs);
    out.fill(0);
    if (!normalize) {
      // What agrees is above 0 when it is multiplied by the elected sign. No branches: signs are as good as random.
      for (const [x, w] of zip(inputs, weight))
        for (let at = 0; at < out.length; at++) out[at] = out[at]! + Math.max(0, w * x[at]! * signs[at]!);
      for (let at = 0; at < out.length; at++) out[at] = base[at]! + lambda * signs[at]! * out[at]!;
      return;
    }
    const shares = sharesOf(out.length).fill(0);
    for (const [x, w] of zip(inputs, weight)) {
      for (let at = 0; at < out.length; at++) {
        const y = Math.max(0, w * x[at]! * signs[at]!);
        out[at] = out[at]! + y;
        shares[at] = shares[at]! + w * Math.min(1, y * 1e300);
      }
    }
    for (let at = 0; at < out.length; at++)
      out[at] = base[at]! + (lambda * signs[at]! * out[at]!) / (shares[at]! || 1);
  };
}

export const density = (value: number) =>
  parameter.numbers(value, "part of each task vector that is kept", 0, 1);
export const lambdaParameter = (value: number) =>
  parameter.number(value, "what the merged task vector is multiplied by");
const rescaled = (value: boolean) => parameter.flag(value, "rescale what is left to the same L1 norm");
export const sumParameters = (normalize: boolean, lambda: number) => ({
  weight: parameter.numbers(1, "weight of each model's task vector"),
  lambda: lambdaParameter(lambda),
  normalize: parameter.flag(normalize, "divide by the sum of the weights"),
});
const ofDeltas = { works: "deltas", scaled: true } as const;

/** Customary grids: of sums, and the paper's for TIES's disjoint mean. */
export const sumGrid = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
export const meanGrid = [
  0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2, 2.1, 2.2, 2.3, 2.4, 2.5,
];

export const taskArithmeticMethod = method({
  name: "task-arithmetic",
  about: "base + λ Σ task vectors (Ilharco et al. 2022)",
  ...ofDeltas,
  linear: true,
  grid: { lambda: sumGrid },
  parameters: sumParameters(false, 0.3),
  merge: (_, values) => addUp(values),
});

const crumbs = {
  ...sumParameters(false, 0.3),
  density: density(0.9),
  gamma: parameter.numbers(0.01, "part of each task vector, the largest, that is dropped", 0, 1),
  rescaled: rescaled(false),
};
export const breadcrumbsMethod = method({
  name: "breadcrumbs",
  about: "task vectors without their largest and smallest entries, added up (Davari & Belilovsky 2023)",
  ...ofDeltas,
  grid: { lambda: sumGrid },
  parameters: crumbs,
  treatments: () => [dropOutliers],
  merge: (_, values) => addUp(values),
});
export const breadcrumbsTiesMethod = method({
  name: "breadcrumbs-ties",
  about: "breadcrumbs with an election of signs",
  ...ofDeltas,
  grid: { lambda: sumGrid },
  parameters: crumbs,
  treatments: () => [dropOutliers],
  merge: (_, values) => electAndAdd(values),
});

const drops = {
  density: density(0.5),
  epsilon: parameter.numbers(
    0.15,
    "how far the chance to be kept moves from the density with an entry's rank",
    0,
    1,
  ),
  rescaled: rescaled(true),
  seed: parameter.number(0, "draws what is dropped"),
};
export const dellaMethod = method({
  name: "della",
  about: "entries dropped by rank in their row, then an election of signs (Deep et al. 2024)",
  ...ofDeltas,
  grid: { lambda: meanGrid },
  parameters: { ...sumParameters(true, 1), ...drops },
  treatments: () => [dropByRank],
  merge: (_, values) => electAndAdd(values),
});
export const dellaLinearMethod = method({
  name: "della-linear",
  about: "entries dropped by rank in their row, then added up",
  ...ofDeltas,
  grid: { lambda: sumGrid },
  parameters: { ...sumParameters(false, 0.3), ...drops },
  treatments: () => [dropByRank],
  merge: (_, values) => addUp(values),
});
