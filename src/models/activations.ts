/** Activation functions, each one custom-gradient op: see ops.ts. */
import {
  add,
  erf,
  exp,
  mul,
  relu as tfRelu,
  sigmoid,
  square,
  step,
  sub,
  tanh,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { op } from "./ops.js";

/** x · Φ(x), the exact (erf) form. Φ is kept rather than made again: erf is the dearest part. */
export const gelu = (x: Tensor2D): Tensor2D =>
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
  );

/** GELU by tanh (Hendrycks & Gimpel 2016): x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))). */
function geluTanh(x: Tensor2D): Tensor2D {
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
}

/** x · σ(s x): SiLU with s = 1, CLIP's quick GELU with s = 1.702. */
const swish =
  (slope: number) =>
  (x: Tensor2D): Tensor2D =>
    op(
      [x],
      ([input]) => {
        const s = sigmoid(mul(input, slope));
        return { value: mul(input, s), saved: [input, s] };
      },
      (dy, [input, s]) => [mul(dy, mul(s, add(mul(mul(input, slope), sub(1, s)), 1)))],
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
  quick_gelu: swish(1.702),
  silu: swish(1),
  swish: swish(1),
  relu,
} as const;
export type ActivationName = keyof typeof activations;

export const isActivationName = (name: string): name is ActivationName => Object.hasOwn(activations, name);
export const activationNames: readonly ActivationName[] = Object.keys(activations).filter(isActivationName);
