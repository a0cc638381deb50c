import { sole } from "./inputs.js";
import { ofRanks } from "./select.js";
import { entryCount, method, type Part, type TensorReader } from "./types.js";

/** Added to each probability: what is as good as impossible has a logarithm too. */
const least = 1e-8;

/** Softmax of a row, with a little added to each. */
function likelihoods(row: Float32Array, out: Float64Array): void {
  let top = -Infinity;
  for (const x of row) top = Math.max(top, x);
  let total = 0;
  for (let i = 0; i < row.length; i++) total += out[i] = Math.exp(row[i]! - top);
  for (let i = 0; i < row.length; i++) out[i] = out[i]! / total + least;
}

/** How much each entry of a part matters: |change|, times how far its row's distribution moves (Kullback–Leibler). */
function importance({ base, inputs }: Part, width: number): Float32Array {
  const values = sole(inputs);
  const out = new Float32Array(values.length);
  const [p, q] = [new Float64Array(width), new Float64Array(width)];
  for (let from = 0; from < values.length; from += width) {
    const rowOf = (x: Float32Array) => x.subarray(from, from + width);
    likelihoods(rowOf(values), p);
    likelihoods(rowOf(base), q);
    let divergence = 0;
    for (let i = 0; i < width; i++) divergence += p[i]! * Math.log(p[i]! / q[i]!);
    for (let i = from; i < from + width; i++) out[i] = Math.abs(values[i]! - base[i]!) * divergence;
  }
  return out;
}

/** The importance that an entry must have: the median and one and a half times the quartiles' distance. */
function threshold(tensor: TensorReader): number {
  const size = entryCount(tensor);
  if (size === 0) return 0;
  const scores: TensorReader = {
    ...tensor,
    *parts() {
      for (const part of tensor.parts()) yield { ...part, inputs: [importance(part, tensor.width)] };
    },
  };
  const ranks = [0.25, 0.5, 0.75].map((share) => size - Math.floor(share * (size - 1)));
  const [[first, median, third] = []] = ofRanks(scores, [ranks]);
  if (!first || !median || !third) return 0;
  return median.magnitude + 1.5 * (third.magnitude - first.magnitude);
}

export const arceeFusionMethod = method({
  name: "arcee-fusion",
  about: "of one model what matters most, the rest as the base has it (Arcee 2024, mergekit)",
  works: "values",
  inputs: [1, 1],
  parameters: {},
  merge(tensor) {
    const limit = Math.fround(threshold(tensor));
    return (part, out) => {
      const scores = importance(part, tensor.width);
      const [{ base }, values] = [part, sole(part.inputs)];
      for (let i = 0; i < out.length; i++) {
        out[i] = base[i]!;
        if (scores[i]! >= limit) out[i] = base[i]! + Math.fround(values[i]! - base[i]!);
      }
    };
  },
});
