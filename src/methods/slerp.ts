import { clampCosine, gram } from "./geometry.js";
import { weightedSum } from "./linear.js";
import { choice, method, number, numbers, type TensorReader } from "./types.js";

/** Norms of next to nothing count as 1 in a cosine: the vector is as good as none. */
const orOne = (norm: number): number => (norm > 1e-8 ? norm : 1);

export const slerp = method({
  name: "slerp",
  about: "from the first of two models to the second along the sphere (Shoemake 1985)",
  works: "values",
  inputs: [2, 2],
  baseless: true,
  grid: { t: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9] },
  parameters: { t: number(0.5, "0 is the first model, 1 the second") },
  merge(tensor, { t }) {
    const [aa, ab, , bb] = gram(tensor) as unknown as [number, number, number, number];
    const cosine = clampCosine(ab / orOne(Math.sqrt(aa)) / orOne(Math.sqrt(bb)));
    // Where they are all but parallel, a straight line.
    const angle = Math.acos(cosine);
    const coefficients =
      Math.abs(cosine) > 0.9995
        ? [1 - t, t]
        : [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
    return (part, out) => weightedSum(part, coefficients, out);
  },
});

/** What the two task vectors count for when they have these squares and this product. */
function arc(t: number, aa: number, ab: number, bb: number): [number, number] {
  const cosine = clampCosine(ab / Math.max(Math.sqrt(aa), 1e-7) / Math.max(Math.sqrt(bb), 1e-7));
  // All but parallel or opposed, as far as float32 can tell: a straight line.
  if (1 - cosine ** 2 <= 2 ** -24) return [1 - t, t];
  const angle = Math.acos(cosine);
  return [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
}

/** Squares and products of every column of two task vectors. */
function columnProducts(tensor: TensorReader): [aa: Float64Array, ab: Float64Array, bb: Float64Array] {
  const { width } = tensor;
  const sums: [Float64Array, Float64Array, Float64Array] = [
    new Float64Array(width),
    new Float64Array(width),
    new Float64Array(width),
  ];
  for (const {
    inputs: [a, b],
  } of tensor.parts()) {
    for (let i = 0; i < a!.length; i++) {
      const [x, y, c] = [a![i]!, b![i]!, i % width];
      sums[0][c]! += x * x;
      sums[1][c]! += x * y;
      sums[2][c]! += y * y;
    }
  }
  return sums;
}

export const nuslerp = method({
  name: "nuslerp",
  about: "slerp of two models' task vectors (mergekit)",
  works: "deltas",
  inputs: [2, 2],
  baseless: true,
  parameters: {
    weight: numbers(1, "weight of each model; the second's share is how far to go"),
    along: choice(
      "tensor",
      ["tensor", "row", "column"],
      "one arc for a tensor, for each of its rows, or for each column",
    ),
  },
  merge(tensor, { weight, along }) {
    const [first, second] = weight as readonly [number, number];
    const t = Math.abs(first + second) < 1e-6 ? 0.5 : second / (first + second);
    const { width, rows } = tensor;
    // A vector is one arc, whichever way it is looked at.
    if (along === "tensor" || rows === 1) {
      const [aa, ab, , bb] = gram(tensor) as unknown as [number, number, number, number];
      const coefficients = arc(t, aa, ab, bb);
      return (part, out) => weightedSum(part, coefficients, out, part.base);
    }
    if (along === "column") {
      const [aa, ab, bb] = columnProducts(tensor);
      const arcs = Array.from(aa, (_, c) => arc(t, aa[c]!, ab[c]!, bb[c]!));
      return ({ base, inputs: [a, b] }, out) => {
        for (let i = 0; i < out.length; i++) {
          const [ca, cb] = arcs[i % width]!;
          out[i] = base[i]! + ca * a![i]! + cb * b![i]!;
        }
      };
    }
    return ({ base, inputs: [a, b] }, out) => {
      for (let from = 0; from < out.length; from += width) {
        let [aa, ab, bb] = [0, 0, 0];
        for (let i = from; i < from + width; i++) {
          aa += a![i]! ** 2;
          ab += a![i]! * b![i]!;
          bb += b![i]! ** 2;
        }
        const [ca, cb] = arc(t, aa, ab, bb);
        for (let i = from; i < from + width; i++) out[i] = base[i]! + ca * a![i]! + cb * b![i]!;
      }
    };
  },
});
