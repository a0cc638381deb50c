import { at, f64 } from "../at.js";
import { addProduct, flipped, product } from "../tensor/svd.js";
import { lambdaParameter } from "./consensus.js";
import { mergeLayers, sumOf } from "./layers.js";
import { leastSquares, type LinearLayer } from "./least-squares.js";
import { method, parameter, type TensorReader } from "./types.js";

/**
 * WUDI (Cheng et al. 2025): what a layer is given is taken to lie along the rows of its own task vector, so the merged
 * vector Δ is the least of Σ_i ‖(Δ − τ_i) τ_iᵀ‖² / ‖τ_i‖². That is RegMean with τ_iᵀ τ_i / ‖τ_i‖² for Gram matrices.
 */

type Stored = Pick<TensorReader, "name" | "rows" | "width" | "transposed">;

/** Mᵀ M / ‖M‖² of a matrix in rows; of nothing, nothing. */
function ownGram(matrix: Float64Array, width: number): Float64Array {
  const rows = matrix.length / width;
  let square = 0;
  for (const x of matrix) square += x * x;
  const out = product(flipped(matrix, rows, width), matrix, { rows: width, inner: rows, width });
  return out.map((x) => x / (square || 1));
}

/** Task vectors [out, in], each with the Gram matrix that it stands for. */
function asLayers(deltas: readonly Float64Array[], { rows, width, transposed }: Stored): LinearLayer[] {
  return deltas.map((weight) => ({
    weight,
    gram: () => (transposed ? ownGram(flipped(weight, rows, width), rows) : ownGram(weight, width)),
  }));
}

/** How a descent goes: Adam as the authors run it. */
interface Descent {
  readonly steps: number;
  readonly rate: number;
}
const [firstDecay, secondDecay, epsilon] = [0.9, 0.999, 1e-8];

/** The descent on that sum from Σ τ_i, which its gradient 2 (Δ H − B) is all there is to know of. */
function descend(deltas: readonly Float64Array[], size: number, { steps, rate }: Descent): Float64Array {
  const grams = deltas.map((delta) => ownGram(delta, size));
  const whole = { rows: at(deltas, 0).length / size, inner: size, width: size };
  const target = new Float64Array(at(deltas, 0).length);
  for (const [i, delta] of deltas.entries()) addProduct(target, delta, at(grams, i), whole);
  const gram = sumOf(grams);
  const found = sumOf(deltas);
  const [first, second] = [new Float64Array(found.length), new Float64Array(found.length)];
  for (let step = 1; step <= steps; step++) {
    const sum = product(found, gram, whole);
    for (let i = 0; i < found.length; i++) {
      const g = 2 * (f64(sum, i) - f64(target, i));
      const [m, v] = [
        firstDecay * f64(first, i) + (1 - firstDecay) * g,
        secondDecay * f64(second, i) + (1 - secondDecay) * g * g,
      ];
      first[i] = m;
      second[i] = v;
      const root = Math.sqrt(v / (1 - secondDecay ** step));
      found[i] = f64(found, i) - (rate * m) / (1 - firstDecay ** step) / (root + epsilon);
    }
  }
  return found;
}

function byDescent(deltas: readonly Float64Array[], { rows, width, transposed }: Stored, how: Descent) {
  if (!transposed) return descend(deltas, width, how);
  const turned = deltas.map((delta) => flipped(delta, rows, width));
  return flipped(descend(turned, rows, how), width, rows);
}

/** @throws RangeError where a layer's task vectors are all 0 but for rounding */
function bySolving(deltas: readonly Float64Array[], stored: Stored): Float64Array {
  if (deltas.every((delta) => delta.every((x) => x === 0))) return at(deltas, 0);
  const solved = leastSquares(stored, asLayers(deltas, stored), 1);
  if (solved) return solved;
  throw new RangeError(`${stored.name}: its task vectors' squares add up to what cannot be inverted`);
}

export const wudiMethod = method({
  name: "wudi",
  about: "layers that disturb each task's own directions least (Cheng et al. 2025)",
  works: "deltas",
  scaled: true,
  grid: { lambda: [0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.6, 1.8, 2] },
  parameters: {
    lambda: lambdaParameter(1),
    by: parameter.choice(
      "solving",
      ["solving", "descent"],
      "the least itself, or so many steps towards it from the sum, as published",
    ),
    steps: parameter.number(300, "steps of a descent", 0),
    rate: parameter.number(1e-5, "learning rate of a descent", 0),
  },
  unread: ({ by }) => ({ solving: ["steps", "rate"], descent: [] })[by],
  changesEqual: () => true,
  merge: (tensor, { lambda, by, steps, rate }) =>
    mergeLayers(tensor, { lambda }, (deltas) =>
      by === "solving" ? bySolving(deltas, tensor) : byDescent(deltas, tensor, { steps, rate }),
    ),
});
