import { f64 } from "../at.js";
import { weightedSum } from "./arrays.js";
import { clampCosine, pairProducts, type PairProducts } from "./geometry.js";
import { pair } from "./inputs.js";
import { method, parameter, type MergePart, type TensorReader } from "./types.js";

/** What the two ends of an arc are multiplied by. */
type Ends = readonly [number, number];

/** The place `t` on an arc; on a straight line where the two are all but parallel. */
function arcEnds(t: number, cosine: number, isStraight: boolean): Ends {
  if (isStraight) return [1 - t, t];
  const angle = Math.acos(cosine);
  return [Math.sin((1 - t) * angle) / Math.sin(angle), Math.sin(t * angle) / Math.sin(angle)];
}

/** Norms of next to nothing count as 1 in a cosine: the vector is as good as none. */
const orOne = (norm: number): number => (norm > 1e-8 ? norm : 1);

function endsOfModels(t: number, { aa, ab, bb }: PairProducts): Ends {
  const cosine = clampCosine(ab / orOne(Math.sqrt(aa)) / orOne(Math.sqrt(bb)));
  return arcEnds(t, cosine, Math.abs(cosine) > 0.9995);
}

export const slerpMethod = method({
  name: "slerp",
  about: "from the first of two models to the second along the sphere (Shoemake 1985)",
  works: "values",
  inputs: [2, 2],
  baseless: true,
  grid: { t: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9] },
  parameters: { t: parameter.number(0.5, "0 is the first model, 1 the second") },
  merge(tensor, { t }) {
    const ends = endsOfModels(t, pairProducts(tensor));
    return ({ inputs }, out) => weightedSum(inputs, ends, out);
  },
});

function endsOfDeltas(t: number, { aa, ab, bb }: PairProducts): Ends {
  const cosine = clampCosine(ab / Math.max(Math.sqrt(aa), 1e-7) / Math.max(Math.sqrt(bb), 1e-7));
  // As far as float32 can tell.
  return arcEnds(t, cosine, 1 - cosine ** 2 <= 2 ** -24);
}

/** The ends of every column's arc: two numbers a column. */
function endsOfColumns(tensor: TensorReader, t: number): [first: Float64Array, second: Float64Array] {
  const { width } = tensor;
  const [aa, ab, bb] = [new Float64Array(width), new Float64Array(width), new Float64Array(width)];
  for (const { inputs } of tensor.parts()) {
    const [a, b] = pair(inputs);
    for (let i = 0; i < a.length; i++) {
      const [x, y, c] = [a[i]!, b[i]!, i % width];
      aa[c] = aa[c]! + x * x;
      ab[c] = ab[c]! + x * y;
      bb[c] = bb[c]! + y * y;
    }
  }
  const [first, second] = [new Float64Array(width), new Float64Array(width)];
  for (let c = 0; c < width; c++)
    [first[c], second[c]] = endsOfDeltas(t, { aa: f64(aa, c), ab: f64(ab, c), bb: f64(bb, c) });
  return [first, second];
}

function mergeColumns(tensor: TensorReader, t: number): MergePart {
  const [first, second] = endsOfColumns(tensor, t);
  return ({ base, inputs }, out) => {
    const [a, b] = pair(inputs);
    for (let i = 0; i < out.length; i++) {
      const c = i % tensor.width;
      out[i] = base[i]! + first[c]! * a[i]! + second[c]! * b[i]!;
    }
  };
}

/** Each row along its own arc. */
const mergeRows =
  (width: number, t: number): MergePart =>
  ({ base, inputs }, out) => {
    const [a, b] = pair(inputs);
    for (let from = 0; from < out.length; from += width) {
      let [aa, ab, bb] = [0, 0, 0];
      for (let i = from; i < from + width; i++) {
        const [x, y] = [a[i]!, b[i]!];
        aa += x ** 2;
        ab += x * y;
        bb += y ** 2;
      }
      const [first, second] = endsOfDeltas(t, { aa, ab, bb });
      for (let i = from; i < from + width; i++) out[i] = base[i]! + first * a[i]! + second * b[i]!;
    }
  };

export const nuslerpMethod = method({
  name: "nuslerp",
  about: "slerp of two models' task vectors (mergekit)",
  works: "deltas",
  inputs: [2, 2],
  baseless: true,
  parameters: {
    weight: parameter.numbers(1, "weight of each model; the second's share is how far to go"),
    along: parameter.choice(
      "tensor",
      ["tensor", "row", "column"],
      "one arc for a tensor, for each of its rows, or for each column",
    ),
  },
  merge(tensor, { weight, along }) {
    const [first, second] = pair(weight);
    const t = Math.abs(first + second) < 1e-6 ? 0.5 : second / (first + second);
    // A vector is one arc, whichever way it is looked at.
    if (along === "tensor" || tensor.rows === 1) {
      const ends = endsOfDeltas(t, pairProducts(tensor));
      return ({ base, inputs }, out) => weightedSum(inputs, ends, out, base);
    }
    if (along === "column") return mergeColumns(tensor, t);
    return mergeRows(tensor.width, t);
  },
});
