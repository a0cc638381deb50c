/**
 * What blocks are made of: weights by name with the rank that they need, linear layers and norms by the names of their
 * modules, activation functions. Each that has a gradient of its own is one op: see ops.ts.
 */
import {
  reshape,
  tanh,
  tensor1d,
  add,
  erf,
  exp,
  mul,
  relu as tfRelu,
  sigmoid,
  square,
  step,
  sub,
  type Tensor1D,
  type Tensor2D,
  type Tensor,
} from "@tensorflow/tfjs-core";
import { affine, rows, concatenated, lowRank, plus, scaled, op, type Dense } from "./ops.js";
import { layerNorm, rmsNorm } from "./norms.js";
import { hasKernel, runOwn } from "./own-kernels.js";
import type { HeadNames, Lookup, Weights, Shapes } from "./types.js";

export const isMatrix = (tensor: Tensor): tensor is Tensor2D => tensor.rank === 2;
export const isVector = (tensor: Tensor): tensor is Tensor1D => tensor.rank === 1;

const wrongRank = (what: string, tensor: Tensor | undefined, wanted: string) =>
  new Error(`${what} must be ${wanted}, it is ${tensor ? `[${tensor.shape.join(", ")}]` : "missing"}`);

/** A tensor as the matrix that it is. @param what it, for the error where it is none */
export function asMatrix(tensor: Tensor | undefined, what: string): Tensor2D {
  if (!tensor || !isMatrix(tensor)) throw wrongRank(what, tensor, "a matrix");
  return tensor;
}

/** A weight that is a matrix. */
export const weightMatrix = (weights: Weights, name: string): Tensor2D => asMatrix(weights(name), name);

/** A weight that is a vector: a bias, the scale of a norm. */
export function weightVector(weights: Weights, name: string): Tensor1D {
  const tensor = weights(name);
  if (!isVector(tensor)) throw wrongRank(name, tensor, "a vector");
  return tensor;
}

/** Whether nobody asks for the gradient of any of these. */
export const areFrozen = (weights: Weights, ...names: readonly string[]): boolean =>
  names.every((name) => weights.frozen?.(name) ?? false);

/** Rows of a table by its name: only those, where the weights can make them alone. */
export const lookUpRows = (weights: Weights, { name, ids }: Lookup): Tensor2D =>
  weights.rows?.(name, ids) ?? rows(weightMatrix(weights, name), tensor1d(ids, "int32"));

export interface DenseOptions {
  /** Its weight is stored [in, out], as GPT-2's are. */
  readonly transposed?: boolean | undefined;
  /** It has no bias. */
  readonly bare?: boolean | undefined;
}

/** A linear layer's tensors, and its input shown to whoever wants to see it. */
function linearLayer(
  w: Weights,
  x: Tensor2D,
  module: string,
  { transposed, bare = false }: DenseOptions,
): Dense {
  const [weight, bias] = [`${module}.weight`, `${module}.bias`];
  w.onLinearInput?.(weight, x);
  const layer = { weight: weightMatrix(w, weight), transposed };
  if (bare) return { ...layer, frozen: areFrozen(w, weight) };
  return { ...layer, bias: weightVector(w, bias), frozen: areFrozen(w, weight, bias) };
}

/** A linear layer with the adapters beside it. */
function adaptedLinear(w: Weights, x: Tensor2D, module: string, options: DenseOptions): Tensor2D {
  const { lora, ia3 } = w.adapterOf?.(module) ?? {};
  const rescaled = (t: Tensor2D, side: "in" | "out") =>
    side === ia3 ? scaled(t, weightVector(w, `${module}.ia3_l`)) : t;
  const input = rescaled(x, "in");
  const own = affine(input, [linearLayer(w, input, module, options)]);
  return rescaled(lora ? plus(own, loraProduct(w, input, module)) : own, "out");
}

/** What LoRA adds. A merge trains d alone, and its A and B are frozen; fine-tuning trains A and B. */
function loraProduct(w: Weights, x: Tensor2D, module: string): Tensor2D {
  const [a, b] = [weightMatrix(w, `${module}.lora_A`), weightMatrix(w, `${module}.lora_B`)];
  const d = weightVector(w, `${module}.lora_d`);
  if (w.frozen?.(`${module}.lora_A`) ?? true) return lowRank(x, a, b, d);
  return affine(scaled(affine(x, [{ weight: a }]), d), [{ weight: b }]);
}

/**
 * x [n, in] → [n, out]: one dense layer, or several side by side on the same input, in one product
 * where nothing stands beside them.
 */
export function dense(
  w: Weights,
  x: Tensor2D,
  modules: string | readonly string[],
  options: DenseOptions = {},
): Tensor2D {
  const list = [modules].flat();
  const isAdapted = list.some((module) => w.adapterOf?.(module));
  if (!isAdapted && (list.length === 1 || !options.transposed))
    return affine(
      x,
      list.map((module) => linearLayer(w, x, module, options)),
    );
  return concatenated(
    list.map((module) => adaptedLinear(w, x, module, options)),
    1,
  );
}

/** Layer normalisation by its module. */
export const norm = (w: Weights, module: string, x: Tensor2D, epsilon: number): Tensor2D =>
  layerNorm(x, weightVector(w, `${module}.weight`), weightVector(w, `${module}.bias`), epsilon);

/** Root-mean-square normalisation by its module. */
export const rms = (w: Weights, module: string, x: Tensor2D, epsilon: number): Tensor2D =>
  rmsNorm(x, weightVector(w, `${module}.weight`), epsilon);

/** A tensor's name and shape. */
export type NamedShape = [name: string, shape: readonly number[]];

/** Shapes of a dense layer's tensors. */
export function denseShapes(
  module: string,
  out: number,
  input: number,
  { transposed, bare }: DenseOptions = {},
): NamedShape[] {
  const weight: NamedShape = [`${module}.weight`, transposed ? [input, out] : [out, input]];
  return bare ? [weight] : [weight, [`${module}.bias`, [out]]];
}

export const normShapes = (module: string, width: number): NamedShape[] => [
  [`${module}.weight`, [width]],
  [`${module}.bias`, [width]],
];

/** All tensors of some blocks, each once, in order. */
export const shapesOfBlocks = (
  blocks: readonly { readonly shapes: Shapes }[],
): Map<string, readonly number[]> => new Map(blocks.flatMap(({ shapes }) => [...shapes]));

/** An activation by the engine's own kernels where it has them, else as it is composed of tfjs's. */
const activation =
  (name: string, composed: (x: Tensor2D) => Tensor2D) =>
  (x: Tensor2D): Tensor2D => {
    if (!hasKernel(`Activation_${name}`)) return composed(x);
    return op(
      [x],
      ([input]) => ({ value: runOwn<Tensor2D>(`Activation_${name}`, { x: input }), saved: [input] }),
      (dy, [input]) => [runOwn(`ActivationGradient_${name}`, { x: input, dy })],
    );
  };

/** x · Φ(x), the exact (erf) form. Φ is kept rather than made again: erf is the dearest part. */
export const gelu = activation("gelu", (x) =>
  op(
    [x],
    ([input]) => {
      const cdf = add(mul(erf(mul(input, Math.SQRT1_2)), 0.5), 0.5);
      return { value: mul(input, cdf), saved: [input, cdf] };
    },
    (dy, [input, cdf]) => {
      const density = mul(exp(mul(square(input), -0.5)), 1 / Math.sqrt(2 * Math.PI));
      return [mul(dy, add(cdf, mul(input, density)))];
    },
  ),
);

/** GELU by tanh (Hendrycks & Gimpel 2016): x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))). */
const geluTanh = activation("geluTanh", (x) => {
  const [root, cubic] = [Math.sqrt(2 / Math.PI), 0.044715];
  return op(
    [x],
    ([input]) => {
      const t = tanh(mul(mul(input, add(mul(square(input), cubic), 1)), root));
      return { value: mul(mul(input, 0.5), add(t, 1)), saved: [input, t] };
    },
    (dy, [input, t]) => {
      const inner = mul(add(mul(square(input), 3 * cubic), 1), root);
      return [mul(mul(dy, 0.5), add(add(t, 1), mul(input, mul(sub(1, square(t)), inner))))];
    },
  );
});

/** x · σ(s x): SiLU with s = 1, CLIP's quick GELU with s = 1.702. */
const swish = (name: string, slope: number) =>
  activation(name, (x) =>
    op(
      [x],
      ([input]) => {
        const s = sigmoid(mul(input, slope));
        return { value: mul(input, s), saved: [input, s] };
      },
      (dy, [input, s]) => [mul(dy, mul(s, add(mul(mul(input, slope), sub(1, s)), 1)))],
    ),
  );

const relu = (x: Tensor2D): Tensor2D =>
  op(
    [x],
    ([input]) => ({ value: tfRelu(input), saved: [input] }),
    (dy, [input]) => [mul(dy, step(input))],
  );

/** By the names that config.json gives them. */
export const activations = {
  gelu,
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  gelu_fast: geluTanh,
  quick_gelu: swish("quickGelu", 1.702),
  silu: swish("silu", 1),
  swish: swish("silu", 1),
  relu,
} as const;
export type ActivationName = keyof typeof activations;

export const isActivationName = (name: string): name is ActivationName => Object.hasOwn(activations, name);
export const activationNames: readonly ActivationName[] = Object.keys(activations).filter(isActivationName);

/** What every family calls the head that finds the first and the last token of an answer. */
const spanHead = { weight: "qa_outputs.weight", bias: "qa_outputs.bias" } as const satisfies HeadNames;

const biasOf = ({ weight, bias }: HeadNames): string => bias ?? weight.replace(/weight$/, "bias");

/**
 * The head of a task, by what it is put to: one vector of a row, or every token's, with a class each or as first and
 * last tokens of spans.
 * @param names of the family's head
 * @param has whether the checkpoint has a tensor of this canonical name
 */
export function headNamesFor(
  names: HeadNames,
  kind: "row" | "tokens" | "span",
  has: (name: string) => boolean,
): HeadNames {
  if (kind === "row") return names;
  if (kind === "span") return spanHead;
  const bias = biasOf(names);
  return { weight: names.weight, ...(has(bias) && { bias }) };
}

/** Whether a checkpoint has a head of any kind. */
export const hasHead = (names: HeadNames, has: (name: string) => boolean): boolean =>
  has(names.weight) || has(spanHead.weight);

/** Canonical names of all tensors that a head may have, of any kind, whichever of them are there. */
export function headTensors(names: HeadNames | undefined): string[] {
  if (!names) return [];
  const { dense, weight } = names;
  const inFront = dense === undefined ? [] : [`${dense}.weight`, `${dense}.bias`];
  return [...inFront, weight, biasOf(names), ...Object.values(spanHead)];
}

/** A task's head: weight [outputs, width], bias [outputs]. */
export interface Head {
  readonly weight: Tensor2D;
  readonly bias?: Tensor1D | undefined;
  /** A dense layer in front, weight [width, width], bias [width], and the activation behind it (default: tanh). */
  readonly dense?:
    | {
        readonly weight: Tensor2D;
        readonly bias: Tensor1D;
        readonly activation?: HeadNames["activation"];
      }
    | undefined;
  /** False only where the head itself is trained. */
  readonly frozen?: boolean;
}

/**
 * Logits of a task: features through its head; without one, the features are the scores of rows
 * themselves. With `choices`, the head scores each row and the rows of one example stand side by side:
 * [size / choices, choices]; without, [size, outputs].
 */
export function logits(features: Tensor2D, head: Head | undefined, choices: number | undefined): Tensor2D {
  const scores = head ? headScores(features, head) : features;
  if (choices === undefined) return scores;
  return reshape(scores, [-1, choices]);
}

function headScores(features: Tensor2D, { weight, bias, dense, frozen = true }: Head): Tensor2D {
  const output = { weight, bias, frozen };
  if (!dense) return affine(features, [output]);
  const made = affine(features, [{ ...dense, frozen }]);
  return affine(dense.activation ? activations[dense.activation](made) : tanh(made), [output]);
}
