/** Losses on logits, each one custom-gradient op: see ops.ts. */
import {
  add,
  cast,
  div,
  exp,
  gather,
  log,
  max,
  maximum,
  mul,
  neg,
  oneHot,
  reshape,
  square,
  sub,
  sum,
  tensor1d,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { op } from "./ops.js";

/**
 * Cross-entropy of logits [n, classes] against targets whose rows sum to 1 (one-hot, or probabilities),
 * mean over n. Softmax is kept for the backward.
 * @returns a scalar
 */
export function crossEntropy(logits: Tensor2D, targets: Tensor2D): Tensor {
  const [n] = logits.shape;
  return op(
    [logits],
    ([z]) => {
      const { logP, p } = logSoftmax(z);
      return { value: div(neg(sum(mul(logP, targets))), n), saved: [p, targets] };
    },
    (dy, [p, savedTargets]) => [mul(dy, div(sub(p, savedTargets), n))],
  );
}

/** {@link crossEntropy} against the one right class of each row. */
export function labelCrossEntropy(logits: Tensor2D, labels: readonly number[]): Tensor {
  const targets = oneHot(tensor1d([...labels], "int32"), logits.shape[1]) as Tensor2D;
  return crossEntropy(logits, cast(targets, "float32"));
}

/**
 * Kullback–Leibler divergence of softmax(logits) from probabilities p, both [n, classes]: Σ p (log p −
 * log softmax), mean over n; no gradient goes to p.
 */
export function divergence(logits: Tensor2D, p: Tensor2D): Tensor {
  // 0 log 0 is 0.
  return add(crossEntropy(logits, p), div(sum(mul(p, log(maximum(p, 1e-30)))), p.shape[0]));
}

/** Mean squared error of x to targets, both [n, 1]; no gradient goes to the targets. */
export const squaredError = (x: Tensor2D, targets: Tensor2D): Tensor =>
  op(
    [x],
    ([given]) => {
      const difference = sub(given, targets);
      return { value: div(sum(square(difference)), given.size), saved: [difference] };
    },
    (dy, [difference]) => [mul(dy, mul(difference, 2 / difference.size))],
  );

/** Entropy of the softmax of logits [n, classes], mean over n: AdaMerging's loss without labels. */
export function entropy(logits: Tensor2D): Tensor {
  const [n] = logits.shape;
  return op(
    [logits],
    ([z]) => {
      const { logP, p } = logSoftmax(z);
      const each = neg(sum(mul(p, logP), 1, true));
      return { value: div(sum(each), n), saved: [p, logP, each] };
    },
    (dy, [p, logP, each]) => [mul(dy, div(neg(mul(p, add(logP, each))), n))],
  );
}

/** −Σ p log(p + 1e-8) of logits [n, classes], mean over n: the entropy as fusion_bench writes it. */
export function guardedEntropy(logits: Tensor2D): Tensor {
  const [n] = logits.shape;
  return op(
    [logits],
    ([z]) => {
      const { p } = logSoftmax(z);
      const logP = log(add(p, 1e-8));
      return { value: div(neg(sum(mul(p, logP))), n), saved: [p, logP] };
    },
    (dy, [p, logP]) => {
      // ∂/∂p is −(log(p + ε) + p / (p + ε)); through the softmax, p ⊙ (that − Σ p · that).
      const direct = neg(add(logP, div(p, add(p, 1e-8))));
      return [mul(dy, div(mul(p, sub(direct, sum(mul(p, direct), 1, true))), n))];
    },
  );
}

function logSoftmax(z: Tensor): { logP: Tensor; p: Tensor } {
  const shifted = sub(z, max(z, -1, true));
  const exponentials = exp(shifted);
  const total = sum(exponentials, -1, true);
  return { logP: sub(shifted, log(total)), p: div(exponentials, total) };
}

const indices = (ids: Int32Array) => tensor1d(ids, "int32");

/**
 * Log-probability of one token a row: logits [m, vocabulary], targets [m] → [m, 1]. Held for the
 * backward: the softmax.
 */
export function tokenLogProb(logits: Tensor2D, targets: Int32Array): Tensor2D {
  const vocabulary = logits.shape[1];
  return op(
    [logits],
    ([z]) => {
      const { logP, p } = logSoftmax(z);
      const ids = indices(targets);
      const flat = indices(targets.map((id, row) => row * vocabulary + id));
      return { value: reshape(gather(reshape(logP, [-1]), flat), [-1, 1]), saved: [p, ids] };
    },
    (dy, [p, ids]) => [mul(dy, sub(cast(oneHot(ids, vocabulary), "float32"), p))],
  );
}
