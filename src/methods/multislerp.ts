import { at, f64 } from "../at.js";
import { UserError } from "../errors.js";
import { weightedSum } from "./arrays.js";
import { gram } from "./geometry.js";
import { zip } from "./inputs.js";
import { method, parameter } from "./types.js";

interface Barycentre {
  readonly weights: readonly number[];
  readonly eps: number;
}

const totalOf = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0);

/**
 * The weighted mean of vectors on the sphere, by one step from the direction of their weighted sum. It lies in their
 * span, so that it is worked out on their products alone.
 * @param products ⟨x_i, x_j⟩, [k, k]
 * @returns what each is multiplied by; undefined where they cancel
 */
function meanOnSphere(products: Float64Array, { weights, eps }: Barycentre): number[] | undefined {
  const k = weights.length;
  const norms = weights.map((_, i) => Math.sqrt(f64(products, i * k + i)));
  // u_i = x_i / (‖x_i‖ + ε): what x_i is multiplied by in Σ w_i u_i.
  const shares = zip(weights, norms).map(([weight, norm]) => weight / (norm + eps));
  const along = (coefficients: readonly number[], i: number): number =>
    totalOf(coefficients.map((c, j) => c * f64(products, i * k + j)));
  const size = Math.sqrt(Math.max(0, totalOf(shares.map((c, i) => c * along(shares, i)))));
  if (size < eps) return undefined;
  const mean = shares.map((share) => share / size);
  const cosine = totalOf(shares.map((share, i) => share * along(mean, i)));
  const tangent = zip(shares, mean).map(([share, m]) => share - cosine * m);
  const far = Math.sqrt(Math.max(0, totalOf(tangent.map((c, i) => c * along(tangent, i))))) + eps;
  const norm = totalOf(zip(weights, norms).map(([weight, own]) => weight * own));
  return zip(mean, tangent).map(([m, c]) => norm * (Math.cos(far) * m + (Math.sin(far) / far) * c));
}

export const multislerpMethod = method({
  name: "multislerp",
  about: "weighted mean of the models, or of their task vectors, on the sphere (Goddard 2025, mergekit)",
  works: "deltas",
  baseless: true,
  parameters: {
    weight: parameter.numbers(1, "weight of each model"),
    normalizeWeights: parameter.flag(true, "divide the weights by their sum"),
    eps: parameter.number(1e-8, "shorter than this is no direction", 0),
  },
  merge(tensor, { weight, normalizeWeights, eps }) {
    let total = 1;
    if (normalizeWeights) total = totalOf(weight);
    if (total === 0)
      throw new UserError(
        `${tensor.name}: the weights ${weight.join(", ")} add up to 0, and nothing can be divided by that; turn ` +
          "--normalize-weights off or change them",
      );
    const weights = weight.map((one) => one / total);
    if (weights.length === 1) return ({ base, inputs }, out) => weightedSum(inputs, [1], out, base);
    const products = gram(tensor);
    // Nothing is changed by any of them.
    if (products.every((product) => product === 0)) return ({ base }, out) => out.set(base);
    const found = meanOnSphere(products, { weights, eps });
    // Two that are opposed have a straight line between them; of more there is no middle.
    if (!found && weights.length > 2)
      throw new UserError(
        `${tensor.name}: the models cancel (${weights.map((one) => one.toPrecision(2)).join(", ")}): there is no ` +
          "direction between them; change --weight",
      );
    const coefficients = found ?? [at(weights, 0), at(weights, 1)];
    return ({ base, inputs }, out) => weightedSum(inputs, coefficients, out, base);
  },
});
