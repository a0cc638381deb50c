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
  sub,
  sum,
  tensor1d,
  tensor2d,
  tidy,
  type Tensor,
  type Tensor1D,
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
  return op([logits], ([z], save) => {
    const { logP, p } = logSoftmax(z!);
    save([p, targets]);
    return {
      value: div(neg(sum(mul(logP, targets))), n),
      backward: (dy, [savedP, target]) => [mul(dy, div(sub(savedP!, target!), n))],
    };
  });
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

/**
 * Log-probability of one token a row: logits [m, vocabulary], targets [m] → [m, 1]. Held for the
 * backward: the softmax.
 */
export function tokenLogProb(logits: Tensor2D, targets: Int32Array): Tensor2D {
  const vocabulary = logits.shape[1];
  return op<Tensor2D>([logits], ([z], save) => {
    const { logP, p } = logSoftmax(z!);
    save([p, tensor1d(targets, "int32")]);
    return {
      value: reshape(
        gather(
          reshape(logP, [-1]),
          tensor1d(
            targets.map((id, row) => row * vocabulary + id),
            "int32",
          ),
        ),
        [-1, 1],
      ),
      backward: (dy, [savedP, ids]) => [
        mul(dy, sub(cast(oneHot(ids as Tensor1D, vocabulary), "float32"), savedP!)),
      ],
    };
  });
}

/**
 * The highest score of every row over all pieces, and Σ exp of how far each lies below it, [m, 1] each, a
 * piece at a time. Kept apart, because their sum as one number would round the softmax made of it.
 */
function highestAndSum(x: Tensor2D, pieces: readonly Tensor[]): [highest: Tensor, sum: Tensor] {
  let found: [Tensor, Tensor] | undefined;
  for (const piece of pieces) {
    const before = found;
    found = tidy(() => {
      const z = matMul(x, piece as Tensor2D, false, true);
      const own = max(z, -1, true);
      const highest = before ? maximum(before[0], own) : own;
      const here = sum(exp(sub(z, highest)), -1, true);
      return [highest, before ? add(here, mul(before[1], exp(sub(before[0], highest)))) : here];
    }) as [Tensor, Tensor];
  }
  return found!;
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
  const starts = pieces.map((_, i) => pieces.slice(0, i).reduce((rows, { shape }) => rows + shape[0], 0));
  /** Each row's target as a row of the piece; −1 where it is in another. */
  const within = (i: number): Int32Array =>
    targets.map((id) => (id >= starts[i]! && id < starts[i]! + pieces[i]!.shape[0] ? id - starts[i]! : -1));
  /** 1 at each row's target, where it is among the piece's rows: [m, rows of the piece]. */
  const chosen = (i: number): Tensor =>
    cast(oneHot(tensor1d(within(i), "int32"), pieces[i]!.shape[0]), "float32");
  /** x · w of each row's target, 0 where it is in another piece: [m, 1]. */
  const targetScores = (x: Tensor2D, i: number): Tensor => {
    const ids = within(i);
    const isHere = tensor2d(
      Float32Array.from(ids, (id) => (id < 0 ? 0 : 1)),
      [ids.length, 1],
    );
    const weights = gather(
      pieces[i]!,
      tensor1d(
        ids.map((id) => Math.max(0, id)),
        "int32",
      ),
    );
    return mul(sum(mul(x, weights), -1, true), isHere);
  };
  return op<Tensor2D>(frozen ? [x] : [x, ...pieces], ([input], save) => {
    const [highest, total] = highestAndSum(input as Tensor2D, pieces);
    const ofTargets = pieces.map((_, i) => targetScores(input as Tensor2D, i));
    save([input!, highest, total, ...pieces]);
    return {
      value: sub<Tensor2D>(
        sub(
          ofTargets.reduce((a, b) => add(a, b)),
          highest,
        ),
        log(total),
      ),
      backward(dy, [savedX, savedHighest, savedTotal, ...savedPieces]) {
        let dx: Tensor | undefined;
        const gradients = savedPieces.map((piece, i) => {
          const [forX, forPiece] = tidy(() => {
            const z = matMul(savedX as Tensor2D, piece as Tensor2D, false, true);
            const dz = mul(dy, sub(chosen(i), div(exp(sub(z, savedHighest!)), savedTotal!))) as Tensor2D;
            return [
              matMul(dz, piece as Tensor2D),
              frozen ? undefined : matMul(dz, savedX as Tensor2D, true, false),
            ].filter((t) => t !== undefined);
          }) as [Tensor, Tensor | undefined];
          dx = dx ? add(dx, forX) : forX;
          return forPiece;
        });
        return frozen ? [dx!] : [dx!, ...gradients.map((g) => g!)];
      },
    };
  });
}
