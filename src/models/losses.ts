/** Losses on logits, each one custom-gradient op: see ops.ts. */
import {
  add,
  cast,
  div,
  exp,
  gather,
  log,
  matMul,
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
  tensor2d,
  tidy,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { op, spansOf, type Span } from "./ops.js";

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

/** x Wᵀ for a piece of W's rows. */
const scoresOf = (x: Tensor2D, piece: Tensor2D): Tensor2D => matMul(x, piece, false, true);

/**
 * The highest score of every row over all pieces, and Σ exp of how far each lies below it, [m, 1] each, a
 * piece at a time. Kept apart, because their sum as one number would round the softmax made of it.
 */
function highestAndSum(x: Tensor2D, pieces: readonly Tensor2D[]): [highest: Tensor, sum: Tensor] {
  const [first, ...others] = pieces;
  if (!first) throw new RangeError("an output layer has no pieces");
  let found = tidy((): [Tensor, Tensor] => {
    const z = scoresOf(x, first);
    const highest = max(z, -1, true);
    return [highest, sum(exp(sub(z, highest)), -1, true)];
  });
  for (const piece of others) {
    const [before, sumBefore] = found;
    found = tidy((): [Tensor, Tensor] => {
      const z = scoresOf(x, piece);
      const highest = maximum(before, max(z, -1, true));
      const here = sum(exp(sub(z, highest)), -1, true);
      return [highest, add(here, mul(sumBefore, exp(sub(before, highest))))];
    });
  }
  return found;
}

/** Each row's target as a row of a piece; −1 where it is in another. */
const targetsWithin = (targets: Int32Array, { start, size }: Span): Int32Array =>
  targets.map((id) => (id >= start && id < start + size ? id - start : -1));

/** x · w of each row's target, 0 where it is in another piece: [m, 1]. */
function targetScores(x: Tensor2D, piece: Tensor2D, within: Int32Array): Tensor {
  const isHere = tensor2d(
    Float32Array.from(within, (id) => Number(id >= 0)),
    [within.length, 1],
  );
  const weights = gather(piece, indices(within.map((id) => Math.max(0, id))));
  return mul(sum(mul(x, weights), -1, true), isHere);
}

/**
 * {@link tokenLogProb} of x Wᵀ where W [vocabulary, width] comes in pieces of its rows: logits exist
 * for one piece at a time, forward and back, so that neither they nor W need fit one tensor. Held for
 * the backward: x, W and a number a row.
 * @param x [m, width]
 * @param frozen nobody asks for W's gradient
 * @returns [m, 1]
 */
export function tokenLogProbOfPieces(
  x: Tensor2D,
  pieces: readonly Tensor2D[],
  targets: Int32Array,
  frozen: boolean,
): Tensor2D {
  const spans = spansOf(pieces.map(({ shape }) => shape[0]));
  const within = spans.map((span) => targetsWithin(targets, span));
  const trained = frozen ? [] : pieces;
  return op(
    [x, ...trained],
    ([input]) => {
      const [highest, total] = highestAndSum(input, pieces);
      const ofTargets = pieces
        .map((piece, i) => targetScores(input, piece, at(within, i)))
        .reduce((a, b) => add(a, b));
      return {
        value: sub<Tensor2D>(sub(ofTargets, highest), log(total)),
        saved: [input, highest, total, ...pieces],
      };
    },
    (dy, [input, highest, total, ...savedPieces]) => {
      // Of every piece: what it gives to x, and its own gradient, where somebody asks for it.
      const each = savedPieces.map((piece, i) =>
        tidy((): Tensor[] => {
          const z = scoresOf(input, piece);
          // 1 at each row's target, where it is among the piece's rows: [m, rows of the piece].
          const chosen = cast(oneHot(indices(at(within, i)), piece.shape[0]), "float32");
          const dz: Tensor2D = mul(dy, sub(chosen, div(exp(sub(z, highest)), total)));
          const forX = matMul(dz, piece);
          return frozen ? [forX] : [forX, matMul(dz, input, true, false)];
        }),
      );
      const dx = each.map((gradients) => at(gradients, 0)).reduce((a, b) => add(a, b));
      return [dx, ...each.flatMap((gradients) => gradients.slice(1))];
    },
  );
}
