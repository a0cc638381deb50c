/**
 * From a model's tokens to a vector a text, as the folders of sentence-transformers say it (pooling, dense layers), and
 * the losses of such vectors.
 */
import {
  matMul,
  mul,
  square,
  sub,
  sum,
  tanh,
  tensor1d,
  tensor2d,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { labelCrossEntropy } from "./losses.js";
import { affine, op, product, rows, unitRows } from "./ops.js";
import type { TokenRow } from "./types.js";

/** How a text's tokens become one vector: shares that each token has of it. */
export const poolings = {
  cls: (length: number) => Array.from({ length }, (_, i) => (i === 0 ? 1 : 0)),
  mean: (length: number) => Array.from({ length }, () => 1 / length),
  mean_sqrt_len: (length: number) => Array.from({ length }, () => 1 / Math.sqrt(length)),
  /** Later tokens weigh more (SGPT): 1 to n. */
  weightedmean: (length: number) => Array.from({ length }, (_, i) => (2 * (i + 1)) / (length * (length + 1))),
  lasttoken: (length: number) => Array.from({ length }, (_, i) => (i === length - 1 ? 1 : 0)),
} as const satisfies Readonly<Record<string, (length: number) => number[]>>;
export type Pooling = keyof typeof poolings;

/** A dense layer behind the pooling. It is the base's, and is not merged. */
export interface EmbeddingDense {
  /** [out, in], one row after the other. */
  readonly weight: Float32Array;
  readonly out: number;
  readonly bias?: Float32Array | undefined;
  readonly activation: "identity" | "tanh";
}

export interface EmbeddingForm {
  readonly pooling: Pooling;
  readonly dense: readonly EmbeddingDense[];
}

/** [rows, tokens]: of each row of the batch, what share each token has. */
function shares(given: readonly TokenRow[], { pooling }: EmbeddingForm): Tensor2D {
  const tokens = given.reduce((total, { ids }) => total + ids.length, 0);
  const values = new Float32Array(given.length * tokens);
  let start = 0;
  for (const [r, { ids }] of given.entries()) {
    values.set(poolings[pooling](ids.length), r * tokens + start);
    start += ids.length;
  }
  return tensor2d(values, [given.length, tokens]);
}

const tanhOf = (x: Tensor2D): Tensor2D =>
  op(
    [x],
    ([given]) => {
      const y = tanh(given);
      return { value: y, saved: [y] };
    },
    (dy, [y]) => [mul(dy, sub(1, square(y)))],
  );

function throughDense(x: Tensor2D, { weight, out, bias, activation }: EmbeddingDense): Tensor2D {
  const layer = {
    weight: tensor2d(weight, [out, weight.length / out]),
    bias: bias && tensor1d(bias),
    frozen: true,
  };
  const y = affine(x, [layer]);
  return activation === "tanh" ? tanhOf(y) : y;
}

/**
 * Texts as vectors of length 1.
 * @param features every token of every row, [tokens, width]
 * @returns [rows, width] (of the last dense layer, where there are some)
 */
export const embeddings = (features: Tensor2D, given: readonly TokenRow[], form: EmbeddingForm): Tensor2D =>
  unitRows(form.dense.reduce(throughDense, product(shares(given, form), features)));

/** What in-batch contrast multiplies cosines by (a temperature of 0.05): MultipleNegativesRankingLoss's default. */
export const contrastScale = 20;

const chosen = (x: Tensor2D, places: readonly number[]): Tensor2D =>
  rows(x, tensor1d(Int32Array.from(places), "int32"));

/** x yᵀ · scale, with gradients for both. */
const similarities = (x: Tensor2D, y: Tensor2D): Tensor2D =>
  op(
    [x, y],
    ([a, b]) => ({ value: mul<Tensor2D>(matMul(a, b, false, true), contrastScale), saved: [a, b] }),
    (dy, [a, b]) => {
      const scaled = mul(dy, contrastScale);
      return [matMul(scaled, b), matMul(scaled, a, true)];
    },
  );

/** ⟨x_i, y_i⟩ of every row, [n, 1]. */
const rowProducts = (x: Tensor2D, y: Tensor2D): Tensor2D =>
  op(
    [x, y],
    ([a, b]) => ({ value: sum<Tensor2D>(mul(a, b), 1, true), saved: [a, b] }),
    (dy, [a, b]) => [mul(dy, b), mul(dy, a)],
  );

/**
 * The contrast of each anchor's positive to every other text of the batch (van den Oord et al. 2018; sentence-
 * transformers' MultipleNegativesRankingLoss): cross-entropy of 20 · cosine.
 * @param x vectors of unit length: of each example its anchor, its positive and its negatives, one after the other
 * @param each how many those are
 */
export function contrastLoss(x: Tensor2D, each: number): Tensor {
  const examples = x.shape[0] / each;
  const places = Array.from({ length: examples }, (_, i) => i * each);
  // All positives first, then all first negatives: the right one of example i is number i.
  const others = Array.from({ length: each - 1 }, (_, j) => places.map((start) => start + j + 1)).flat();
  const scores = similarities(chosen(x, places), chosen(x, others));
  return labelCrossEntropy(scores, Array.from(places.keys()));
}

/** The cosine of each example's two texts, [examples, 1]. @param x vectors of unit length: of each example two */
export function cosines(x: Tensor2D): Tensor2D {
  const firsts = Array.from({ length: x.shape[0] / 2 }, (_, i) => 2 * i);
  const seconds = firsts.map((place) => place + 1);
  return rowProducts(chosen(x, firsts), chosen(x, seconds));
}

/** 1 − the cosine to what an expert makes of the same text, mean over texts. Both of unit length. */
export function towardsLoss(x: Tensor2D, told: Tensor2D): Tensor {
  const [n] = x.shape;
  return op(
    [x],
    ([given]) => ({ value: sub(1, mul(sum(mul(given, told)), 1 / n)), saved: [told] }),
    (dy, [saved]) => [mul(dy, mul(saved, -1 / n))],
  );
}
