import { weightedSum } from "./arrays.js";
import { wholeInputs } from "./layers.js";
import { leastSquares, type LinearLayer } from "./least-squares.js";
import { equalShares } from "./linear.js";
import { zip } from "./inputs.js";
import { method, parameter, type TensorReader } from "./types.js";

/** The inputs' tensors, whole; undefined where there are no Gram matrices for them. */
function readLayers(tensor: TensorReader): LinearLayer[] | undefined {
  const grams = tensor.labels.flatMap((_, input) => tensor.gram?.(input) ?? []);
  if (grams.length < tensor.labels.length) return undefined;
  return zip(wholeInputs(tensor), grams).map(([weight, gram]) => ({ weight, gram: () => gram }));
}

export const regmeanMethod = method({
  name: "regmean",
  about: "linear layers by least squares on validation inputs, the rest averaged (Jin et al. 2022)",
  works: "values",
  needs: "gram",
  baseless: true,
  parameters: {
    alpha: parameter.number(0.9, "what the Gram matrices' off-diagonal entries are multiplied by", 0, 1),
  },
  grid: { alpha: [0.1, 0.3, 0.5, 0.7, 0.9, 1] },
  merge(tensor, { alpha }) {
    const { labels, name } = tensor;
    const layers = readLayers(tensor);
    if (!layers) {
      const coefficients = equalShares(labels);
      return ({ inputs }, out) => weightedSum(inputs, coefficients, out);
    }
    const solved = leastSquares(tensor, layers, alpha);
    if (!solved)
      throw new RangeError(
        `${name}: the inputs' Gram matrices add up to one that cannot be inverted; take more ` +
          "--val-per-task or a lower --alpha",
      );
    const whole = Float32Array.from(solved);
    return ({ start }, out) => out.set(whole.subarray(start, start + out.length));
  },
});
