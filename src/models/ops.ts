/**
 * The pieces transformers are made of, each one custom-gradient op: its intermediate results are freed when
 * its forward returns, and only what its backward needs is kept. Activations are 2-D, [tokens, width].
 */
import {
  add, customGrad, div, erf, exp, gather, log, matMul, max, mean, mul, neg, reshape, rsqrt, softmax, square, sub, sum,
  transpose, unsortedSegmentSum, type Tensor, type Tensor1D, type Tensor2D, type Tensor4D,
} from "@tensorflow/tfjs-core";

type Backward = (dy: Tensor, saved: Tensor[]) => Tensor[];

/**
 * customGrad with honest types: `forward` gets the inputs and `save`, and returns the value and its backward.
 * A backward may use saved tensors only: whatever else the forward made or was given is gone by then.
 */
function op<Out extends Tensor>(
  inputs: Tensor[],
  forward: (inputs: Tensor[], save: (tensors: Tensor[]) => void) => { value: Out; backward: Backward },
): Out {
  const wrapped = customGrad((...args: unknown[]) => {
    const save = args.pop() as (tensors: Tensor[]) => void;
    const { value, backward } = forward(args as Tensor[], save);
    return { value, gradFunc: (dy: Tensor | Tensor[], saved: Tensor[]) => backward(dy as Tensor, saved) };
  });
  return wrapped(...inputs);
}

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

/** x Wᵀ + b, with W as PyTorch stores it: x [n, in], W [out, in], b [out] → [n, out]. */
export function linear(x: Tensor2D, weight: Tensor2D, bias: Tensor1D): Tensor2D {
  return op<Tensor2D>([x, weight, bias], ([input, w, b], save) => {
    save([input!, w!]);
    return {
      value: add(matMul(input!, w!, false, true), b!),
      backward: (dy, [savedX, savedW]) => [matMul(dy, savedW!), matMul(dy, savedX!, true, false), sum(dy, 0)],
    };
  });
}

/** x · Φ(x), the exact (erf) form. */
export function gelu(x: Tensor2D): Tensor2D {
  const cdf = (t: Tensor) => mul(0.5, add(1, erf(mul(t, Math.SQRT1_2))));
  return op<Tensor2D>([x], ([input], save) => {
    save([input!]);
    return {
      value: mul<Tensor2D>(input!, cdf(input!)),
      backward: (dy, [t]) => {
        const density = mul(exp(mul(square(t!), -0.5)), 1 / Math.sqrt(2 * Math.PI));
        return [mul(dy, add(cdf(t!), mul(t!, density)))];
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
        return [dx, sum(mul(dy, n!), 0), sum(dy, 0)];
      },
    };
  });
}

export interface AttentionShape {
  readonly size: number;
  readonly length: number;
  readonly heads: number;
}

/**
 * softmax(Q Kᵀ / √d + bias) V for all heads.
 * @param query,key,value [size · length, width]
 * @param bias [size, 1, 1, length] added to the scores: 0 where a token may be seen, very negative where not
 * @returns [size · length, width]
 */
export function attention(query: Tensor2D, key: Tensor2D, value: Tensor2D, bias: Tensor4D, shape: AttentionShape): Tensor2D {
  const { size, length, heads } = shape;
  const width = query.shape[1];
  const depth = width / heads;
  const scale = 1 / Math.sqrt(depth);
  const split = (t: Tensor) => transpose(reshape(t, [size, length, heads, depth]), [0, 2, 1, 3]);
  const join = (t: Tensor) => reshape(transpose(t, [0, 2, 1, 3]), [size * length, width]);
  return op<Tensor2D>([query, key, value], (inputs, save) => {
    const [q, k, v] = inputs.map(split) as [Tensor, Tensor, Tensor];
    const probabilities = softmax(add(mul(matMul(q, k, false, true), scale), bias));
    save([q, k, v, probabilities]);
    return {
      value: join(matMul(probabilities, v)) as Tensor2D,
      backward: (dy, [savedQ, savedK, savedV, p]) => {
        const d = split(dy);
        const dv = matMul(p!, d, true, false);
        const dp = matMul(d, savedV!, false, true);
        const ds = mul(mul(p!, sub(dp, sum(mul(dp, p!), -1, true))), scale);
        return [matMul(ds, savedK!), matMul(ds, savedQ!, true, false), dv].map(join);
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

function logSoftmax(z: Tensor): { logP: Tensor; p: Tensor } {
  const shifted = sub(z, max(z, -1, true));
  const exponentials = exp(shifted);
  const total = sum(exponentials, -1, true);
  return { logP: sub(shifted, log(total)), p: div(exponentials, total) };
}
