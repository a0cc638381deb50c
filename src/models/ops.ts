/**
 * The pieces transformers are made of, each one custom-gradient op: its intermediate results are freed when
 * its forward returns, and only what its backward needs is kept. Activations are 2-D, [tokens, width].
 */
import {
  add, clone, concat, customGrad, dispose, div, erf, exp, gather, log, matMul, max, mean, mul, neg, ones, reshape, rsqrt, slice, square, sub, sum,
  tensor1d, tidy, unsortedSegmentSum, type Tensor, type Tensor1D, type Tensor2D,
} from "@tensorflow/tfjs-core";
import type { Weights } from "./types.js";

type Backward = (dy: Tensor, saved: Tensor[]) => Tensor[];

/**
 * customGrad with honest types: `forward` gets the inputs and `save`, and returns the value and its backward.
 * A backward may use saved tensors only: whatever else the forward made or was given is gone by then. When it
 * returns, its intermediates, what was saved and `dy` are freed, so that memory falls as the gradient runs back
 * (tfjs would hold all of it to the end); nobody else may hold that `dy`.
 */
export function op<Out extends Tensor>(
  inputs: Tensor[],
  forward: (inputs: Tensor[], save: (tensors: Tensor[]) => void) => { value: Out; backward: Backward },
): Out {
  const wrapped = customGrad((...args: unknown[]) => {
    const save = args.pop() as (tensors: Tensor[]) => void;
    const { value, backward } = forward(args as Tensor[], save);
    return {
      value,
      gradFunc(dy: Tensor | Tensor[], saved: Tensor[]) {
        // A gradient that is dy itself gets a handle of its own.
        const gradients = tidy(() => backward(dy as Tensor, saved).map((g) => (g === dy || saved.includes(g) ? clone(g) : g)));
        dispose([dy, ...saved]);
        return gradients;
      },
    };
  });
  return wrapped(...inputs);
}

/** Sum over the rows of x [n, width] → [width], as a product: engines reduce over the first axis slowly. */
const columnSums = (x: Tensor): Tensor => reshape(matMul(ones([1, x.shape[0]]), x), [-1]);

/** Rows of a table: [n, width] gathered at ids [m] → [m, width]. An embedding, or the choice of some tokens. */
export function rows(table: Tensor2D, ids: Tensor1D): Tensor2D {
  const [count] = table.shape;
  return op<Tensor2D>([table], ([source], save) => {
    save([ids]);
    return {
      value: gather(source as Tensor2D, ids),
      backward: (dy, [savedIds]) => [unsortedSegmentSum(dy, savedIds as Tensor1D, count)],
    };
  });
}

/** a + b of one shape: a residual connection. */
export function plus(a: Tensor2D, b: Tensor2D): Tensor2D {
  return op<Tensor2D>([a, b], ([x, y]) => ({ value: add(x!, y!), backward: (dy) => [dy, dy] }));
}

/** Σ⟨x_i, direction_i⟩: its gradient at x_i is direction_i, which carries a gradient on from where it was cut. */
export function along(xs: Tensor[], directions: readonly Tensor[]): Tensor {
  return op(xs, (inputs, save) => {
    save(directions.map((d) => clone(d)));
    return {
      value: inputs.map((x, i) => sum(mul(x, directions[i]!))).reduce((a, b) => add(a, b)),
      backward: (dy, saved) => saved.map((direction) => mul(direction, dy)),
    };
  });
}

/** Rows of a table by its name: only those, where the weights can make them alone. */
export const lookup = (weights: Weights, name: string, ids: Int32Array): Tensor2D =>
  weights.rows?.(name, ids) ?? rows(weights(name) as Tensor2D, tensor1d(ids, "int32"));

export interface Dense {
  /** [out, in], as PyTorch stores it. */
  readonly weight: Tensor2D;
  /** [out] */
  readonly bias: Tensor1D;
  /** Nobody asks for its gradient, so none is formed. */
  readonly frozen?: boolean | undefined;
}

/** x Wᵀ + b for one dense layer, or for several side by side in one product: x [n, in] → [n, Σ out]. */
export function linear(x: Tensor2D, layers: readonly Dense[]): Tensor2D {
  const trained = !layers.every(({ frozen }) => frozen);
  const parameters = layers.flatMap(({ weight, bias }) => [weight, bias] as Tensor[]);
  const joined = (tensors: Tensor[]) => (tensors.length === 1 ? tensors[0]! : concat(tensors, 0));
  const outs = layers.map(({ weight }) => weight.shape[0]);
  const starts = outs.map((_, i) => outs.slice(0, i).reduce((sum, out) => sum + out, 0));
  return op<Tensor2D>(trained ? [x, ...parameters] : [x], ([input], save) => {
    const w = joined(layers.map(({ weight }) => weight));
    save(trained ? [w, input!] : [w]);
    return {
      value: add(matMul(input!, w, false, true), joined(layers.map(({ bias }) => bias))),
      backward(dy, [savedW, savedX]) {
        const dx = matMul(dy, savedW!);
        if (!trained) return [dx];
        const [dw, db] = [matMul(dy, savedX!, true, false), columnSums(dy)];
        if (layers.length === 1) return [dx, dw, db];
        return [dx, ...outs.flatMap((out, i) => [slice(dw, [starts[i]!, 0], [out, -1]), slice(db, [starts[i]!], [out])])];
      },
    };
  });
}

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

/** Layer normalisation over the last axis: x [n, width], scale and shift [width]. */
export function layerNorm(x: Tensor2D, scale: Tensor1D, shift: Tensor1D, epsilon: number): Tensor2D {
  return op<Tensor2D>([x, scale, shift], ([input, gamma, beta], save) => {
    const centred = sub(input!, mean(input!, 1, true));
    const inverse = rsqrt(add(mean(square(centred), 1, true), epsilon));
    const normal = mul(centred, inverse);
    save([normal, inverse, gamma!]);
    return {
      value: add<Tensor2D>(mul(normal, gamma!), beta!),
      backward: (dy, [n, inv, g]) => {
        const dNormal = mul(dy, g!);
        const along = mean(mul(dNormal, n!), 1, true);
        const dx = mul(inv!, sub(sub(dNormal, mean(dNormal, 1, true)), mul(n!, along)));
        return [dx, columnSums(mul(dy, n!)), columnSums(dy)];
      },
    };
  });
}

/**
 * Cross-entropy of logits [n, classes] against one-hot targets, mean over n. Softmax is kept for the backward.
 * @returns a scalar
 */
export function crossEntropy(logits: Tensor2D, oneHot: Tensor2D): Tensor {
  const [n] = logits.shape;
  return op([logits], ([z], save) => {
    const { logP, p } = logSoftmax(z!);
    save([p, oneHot]);
    return {
      value: div(neg(sum(mul(logP, oneHot))), n),
      backward: (dy, [savedP, target]) => [mul(dy, div(sub(savedP!, target!), n))],
    };
  });
}

/** Entropy of the softmax of logits [n, classes], mean over n: AdaMerging's loss without labels. */
export function entropy(logits: Tensor2D): Tensor {
  const [n] = logits.shape;
  return op([logits], ([z], save) => {
    const { logP, p } = logSoftmax(z!);
    const each = neg(sum(mul(p, logP), 1, true));
    save([p, logP, each]);
    return {
      value: div(sum(each), n),
      backward: (dy, [sp, sLogP, sEach]) => [mul(dy, div(neg(mul(sp!, add(sLogP!, sEach!))), n))],
    };
  });
}

/** −Σ p log(p + 1e-8) of logits [n, classes], mean over n: the entropy as fusion_bench writes it. */
export function guardedEntropy(logits: Tensor2D): Tensor {
  const [n] = logits.shape;
  return op([logits], ([z], save) => {
    const { p } = logSoftmax(z!);
    const logP = log(add(p, 1e-8));
    save([p, logP]);
    return {
      value: div(neg(sum(mul(p, logP))), n),
      backward: (dy, [sp, sLogP]) => {
        // ∂/∂p is −(log(p + ε) + p / (p + ε)); through the softmax, p ⊙ (that − Σ p · that).
        const direct = neg(add(sLogP!, div(sp!, add(sp!, 1e-8))));
        return [mul(dy, div(mul(sp!, sub(direct, sum(mul(sp!, direct), 1, true))), n))];
      },
    };
  });
}

function logSoftmax(z: Tensor): { logP: Tensor; p: Tensor } {
  const shifted = sub(z, max(z, -1, true));
  const exponentials = exp(shifted);
  const total = sum(exponentials, -1, true);
  return { logP: sub(shifted, log(total)), p: div(exponentials, total) };
}
