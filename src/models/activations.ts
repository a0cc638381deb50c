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

/** x · Φ(x), the exact (erf) form. */
export function gelu(x: Tensor2D): Tensor2D {
  return op<Tensor2D>([x], ([input], save) => {
    // Φ is kept rather than made again: erf is the dearest part.
    const cdf = add(mul(erf(mul(input!, Math.SQRT1_2)), 0.5), 0.5);
    save([input!, cdf]);
    return {
      value: mul<Tensor2D>(input!, cdf),
      backward(dy, [t, phi]) {
        const density = mul(exp(mul(square(t!), -0.5)), 1 / Math.sqrt(2 * Math.PI));
        return [mul(dy, add(phi!, mul(t!, density)))];
      },
    };
  });
}

/** GELU by tanh (Hendrycks & Gimpel 2016): x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))). */
function geluTanh(x: Tensor2D): Tensor2D {
  const [root, cubic] = [Math.sqrt(2 / Math.PI), 0.044715];
  return op<Tensor2D>([x], ([input], save) => {
    const t = tanh(mul(mul(input!, add(mul(square(input!), cubic), 1)), root));
    save([input!, t]);
    return {
      value: mul<Tensor2D>(mul(input!, 0.5), add(t, 1)),
      backward(dy, [sx, st]) {
        const inner = mul(add(mul(square(sx!), 3 * cubic), 1), root);
        return [mul(mul(dy, 0.5), add(add(st!, 1), mul(sx!, mul(sub(1, square(st!)), inner))))];
      },
    };
  });
}

/** x · σ(s x): SiLU with s = 1, CLIP's quick GELU with s = 1.702. */
const swish =
  (slope: number) =>
  (x: Tensor2D): Tensor2D =>
    op<Tensor2D>([x], ([input], save) => {
      const s = sigmoid(mul(input!, slope));
      save([input!, s]);
      return {
        value: mul<Tensor2D>(input!, s),
        backward: (dy, [sx, ss]) => [mul(dy, mul(ss!, add(mul(mul(sx!, slope), sub(1, ss!)), 1)))],
      };
    });

function relu(x: Tensor2D): Tensor2D {
  return op<Tensor2D>([x], ([input], save) => {
    save([input!]);
    return { value: tfRelu(input as Tensor2D), backward: (dy, [sx]) => [mul(dy, step(sx!))] };
  });
}

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
export const activationNames = Object.keys(activations) as ActivationName[];
