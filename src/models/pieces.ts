/**
 * A large output layer a piece of its rows at a time: scores of the whole vocabulary are never all there, forward or
 * back. The pieces may be on the device together (here, as one op) or one after the other (stages/output.ts).
 */
import {
  add,
  cast,
  dispose,
  div,
  exp,
  gather,
  log,
  matMul,
  max,
  maximum,
  mul,
  oneHot,
  sub,
  sum,
  tensor1d,
  tensor2d,
  tidy,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import type { Predictions } from "./lesson.js";
import { op, type Span } from "./ops.js";
import { capped, throughCap } from "./softcap.js";

/** A number for every prediction, [predictions, 1], that follows from the scores x Wᵀ of all pieces W. */
export interface PieceScorer {
  /** What is known once piece i has been seen: tensors. `before` is what was known, nothing at first. */
  see(before: readonly Tensor[], x: Tensor2D, piece: Tensor2D, i: number): Tensor[];
  /** The numbers, when all have been, and what their gradient needs. */
  finish(seen: readonly Tensor[]): { readonly value: Tensor2D; readonly kept: Tensor[] };
  /** dy times the gradient with respect to the scores x Wᵀ of piece i. */
  gradient(kept: readonly Tensor[], x: Tensor2D, piece: Tensor2D, place: PiecePlace): Tensor2D;
}

export interface PiecePlace {
  readonly i: number;
  readonly dy: Tensor;
}

/** x Wᵀ for a piece of W's rows, capped where the model does so. */
export const scoresOf = (x: Tensor2D, piece: Tensor2D, cap: number | undefined): Tensor2D =>
  capped(matMul(x, piece, false, true), cap);

/**
 * A scorer's numbers as one op: its forward and its backward go through the pieces one by one.
 * Held for the backward: x, the pieces and some numbers a row.
 * @param x [predictions, width]
 * @param frozen nobody asks for the pieces' gradient
 */
export function overPieces(
  x: Tensor2D,
  pieces: readonly Tensor2D[],
  frozen: boolean,
  scorer: PieceScorer,
): Tensor2D {
  const trained = frozen ? [] : pieces;
  return op(
    [x, ...trained],
    ([input]) => {
      let seen: Tensor[] = [];
      for (const [i, piece] of pieces.entries()) {
        const before = seen;
        seen = tidy(() => scorer.see(before, input, piece, i));
        dispose(before);
      }
      const { value, kept } = scorer.finish(seen);
      return { value, saved: [input, ...pieces, ...kept] };
    },
    (dy, [input, ...saved]) => {
      const [held, kept] = [saved.slice(0, pieces.length) as Tensor2D[], saved.slice(pieces.length)];
      // Of every piece: what it gives to x, and its own gradient, where somebody asks for it.
      const each = held.map((piece, i) =>
        tidy((): Tensor[] => {
          const dz = scorer.gradient(kept, input, piece, { i, dy });
          const forX = matMul(dz, piece);
          return frozen ? [forX] : [forX, matMul(dz, input, true, false)];
        }),
      );
      const dx = each.map((gradients) => at(gradients, 0)).reduce((a, b) => add(a, b));
      return [dx, ...each.flatMap((gradients) => gradients.slice(1))];
    },
  );
}

const indices = (ids: Int32Array) => tensor1d(ids, "int32");

/** Each row's target as a row of a piece; −1 where it is in another. */
const targetsWithin = (targets: Int32Array, { start, size }: Span): Int32Array =>
  targets.map((id) => (id >= start && id < start + size ? id - start : -1));

/** The score of each row's target, 0 where it is in another piece: [m, 1]. */
function targetScores(x: Tensor2D, piece: Tensor2D, within: Int32Array, cap: number | undefined): Tensor {
  const isHere = tensor2d(
    Float32Array.from(within, (id) => Number(id >= 0)),
    [within.length, 1],
  );
  const weights = gather(piece, indices(within.map((id) => Math.max(0, id))));
  return mul(capped(sum(mul(x, weights), -1, true), cap), isHere);
}

/**
 * The log-probability of one token a prediction. Known on the way: the highest score of every row, Σ exp of how far
 * each lies below it (kept apart, because their sum as one number would round the softmax made of it), and the target's
 * score.
 */
export const targetScorer = (
  { targets, cap }: Pick<Predictions, "targets" | "cap">,
  spans: readonly Span[],
): PieceScorer => ({
  see([highestBefore, sumBefore, foundBefore], x, piece, i) {
    const z = scoresOf(x, piece, cap);
    const own = max(z, -1, true);
    const highest = highestBefore ? maximum(highestBefore, own) : own;
    const here = sum(exp(sub(z, highest)), -1, true);
    const found = targetScores(x, piece, targetsWithin(targets, at(spans, i)), cap);
    if (!highestBefore || !sumBefore || !foundBefore) return [highest, here, found];
    const earlier = mul(sumBefore, exp(sub(highestBefore, highest)));
    return [highest, add(here, earlier), add(found, foundBefore)];
  },
  finish(seen) {
    const [highest, total, found] = [at(seen, 0), at(seen, 1), at(seen, 2)];
    return { value: sub<Tensor2D>(sub(found, highest), log(total)), kept: [highest, total] };
  },
  gradient(kept, x, piece, { i, dy }) {
    const [highest, total] = [at(kept, 0), at(kept, 1)];
    const z = scoresOf(x, piece, cap);
    // 1 at each row's target, where it is among the piece's rows: [m, rows of the piece].
    const within = targetsWithin(targets, at(spans, i));
    const chosen = cast(oneHot(indices(within), piece.shape[0]), "float32");
    return throughCap(mul(dy, sub(chosen, div(exp(sub(z, highest)), total))), z, cap);
  },
});
