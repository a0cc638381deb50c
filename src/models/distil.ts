/**
 * Token by token, what a student says against what a teacher said (Hinton et al. 2015; for language models Kim & Rush
 * 2016, Gu et al. 2024). A teacher's distribution is kept as its likeliest tokens and the mass of all others, and so is
 * the student's compared: that divergence is never more than the whole one (data processing).
 */
import {
  add,
  cast,
  concat,
  exp,
  gather,
  less,
  log,
  max,
  maximum,
  mul,
  reshape,
  scatterND,
  slice,
  sub,
  sum,
  tensor1d,
  tensor2d,
  tidy,
  topk,
  type Tensor,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import type { Asked, Comparison, Divergence, Teacher } from "./lesson.js";
import { sideBySide, spansOf, type Span } from "./ops.js";
import { scoresOf, type PieceScorer } from "./pieces.js";
import { throughCap } from "./softcap.js";

/** Stands for log 0. */
const nothing = -60;
const smallest = Math.exp(nothing);

/** How the scores of a piece become what is compared. */
interface Softening {
  readonly temperature: number;
  /** What scores are capped at before (softcap.ts). */
  readonly cap?: number | undefined;
}

/** Scores for a piece of the output layer's rows, divided by the temperature. */
const softened = (x: Tensor2D, piece: Tensor2D, { temperature, cap }: Softening): Tensor2D =>
  mul(scoresOf(x, piece, cap), 1 / temperature);

/** Each of a row's tokens that a piece holds: where, and 1; of the others somewhere, and 0. */
interface Places {
  /** [rows · count, 2] */
  readonly indices: Tensor2D;
  /** In the piece's scores, row after row: [rows · count] */
  readonly flat: Tensor;
  /** [rows, count] */
  readonly here: Tensor2D;
}

function placesIn(ids: Int32Array, rows: number, { start, size }: Span): Places {
  const count = ids.length / rows;
  const isHere = (id: number) => id >= start && id < start + size;
  const local = ids.map((id) => (isHere(id) ? id - start : 0));
  const pairs = new Int32Array(2 * ids.length);
  for (const [i, id] of local.entries()) pairs.set([Math.floor(i / count), id], 2 * i);
  return {
    indices: tensor2d(pairs, [ids.length, 2], "int32"),
    flat: tensor1d(
      local.map((id, i) => Math.floor(i / count) * size + id),
      "int32",
    ),
    here: tensor2d(
      Float32Array.from(ids, (id) => Number(isHere(id))),
      [rows, count],
    ),
  };
}

/** Values of some tokens of each row, [rows, count], among zeros, [rows, size of the piece]. */
const scattered = (values: Tensor, { indices, here }: Places, shape: [number, number]): Tensor2D =>
  scatterND(indices, reshape(mul(values, here), [-1]), shape);

/** Of a distribution: what some tokens have, [rows, count], and all others together, [rows, 1], as logarithms. */
interface Buckets {
  readonly top: Tensor;
  readonly rest: Tensor;
}

/** A divergence over buckets, [rows, 1], and its gradient with respect to each bucket's scores. */
function compared(
  { top: q, rest: qRest }: Pick<Buckets, "top" | "rest">,
  { top: p, rest: pRest }: Pick<Buckets, "top" | "rest">,
  divergence: Divergence,
): { readonly value: Tensor; readonly top: Tensor; readonly rest: Tensor } {
  const [ofTop, ofRest] = [sub(p, q), sub(pRest, qRest)];
  if (divergence === "forward") {
    const value = add(sum(mul(exp(p), ofTop), 1, true), mul(exp(pRest), ofRest));
    // Of a token among the others: its probability, times what is missing of all of them.
    return { value, top: sub(exp(q), exp(p)), rest: sub(1, exp(ofRest)) };
  }
  const value = sub(0, add(sum(mul(exp(q), ofTop), 1, true), mul(exp(qRest), ofRest)));
  return { value, top: mul(exp(q), sub(sub(0, ofTop), value)), rest: sub(sub(0, ofRest), value) };
}

/**
 * What a student's distributions differ from a teacher's by, in nats, times the temperature's square (so that
 * gradients keep their size). Known on the way: the highest score of every row, Σ exp of how far each of the others
 * lies below it, and the scores of the teacher's tokens.
 */
export function teacherScorer(
  teacher: Teacher,
  spans: readonly Span[],
  { temperature, divergence, cap }: Comparison & Softening,
): PieceScorer {
  const rows = teacher.rest.length;
  const count = teacher.ids.length / rows;
  const softening = { temperature, cap };
  const placesOf = (i: number) => placesIn(teacher.ids, rows, at(spans, i));
  return {
    see([highestBefore, othersBefore, topBefore], x, piece, i) {
      const place = placesOf(i);
      const z = softened(x, piece, softening);
      const own = max(z, -1, true);
      const highest = highestBefore ? maximum(highestBefore, own) : own;
      const isTop = scattered(place.here, place, z.shape);
      const others = sum(mul(exp(sub(z, highest)), sub(1, isTop)), -1, true);
      const top = mul(reshape(gather(reshape(z, [-1]), place.flat), place.here.shape), place.here);
      if (!highestBefore || !othersBefore || !topBefore) return [highest, others, top];
      const earlier = mul(othersBefore, exp(sub(highestBefore, highest)));
      return [highest, add(others, earlier), add(top, topBefore)];
    },
    finish(seen) {
      const [highest, others, scores] = [at(seen, 0), at(seen, 1), at(seen, 2)];
      const total = add(highest, log(add(others, sum(exp(sub(scores, highest)), -1, true))));
      const rest = maximum(sub(add(highest, log(maximum(others, smallest))), total), nothing);
      const said = {
        top: tensor2d(teacher.logP, [rows, count]),
        rest: maximum(tensor2d(teacher.rest, [rows, 1]), nothing),
      };
      const found = compared({ top: sub(scores, total), rest }, said, divergence);
      return { value: mul<Tensor2D>(found.value, temperature ** 2), kept: [total, found.top, found.rest] };
    },
    gradient(kept, x, piece, { i, dy }) {
      const [total, top, rest] = [at(kept, 0), at(kept, 1), at(kept, 2)];
      const place = placesOf(i);
      const z = softened(x, piece, softening);
      const isTop = scattered(place.here, place, z.shape);
      const ofOthers = mul(mul(exp(sub(z, total)), sub(1, isTop)), rest);
      const dz: Tensor2D = mul(mul(dy, temperature), add(ofOthers, scattered(top, place, z.shape)));
      return cap === undefined ? dz : throughCap(dz, mul(z, temperature), cap);
    },
  };
}

/** The likeliest tokens over all pieces: their scores, and themselves as numbers, [rows, count] each. */
function likeliestTokens(
  x: Tensor2D,
  pieces: readonly Tensor2D[],
  { count, ...softening }: Asked & Softening,
): { readonly scores: Tensor2D; readonly ids: Tensor2D } {
  const spans = spansOf(pieces.map(({ shape }) => shape[0]));
  const found = pieces.map((piece, i) => {
    const { values, indices } = topk(softened(x, piece, softening), Math.min(count, piece.shape[0]));
    return { scores: values, ids: add<Tensor2D>(cast(indices, "float32"), at(spans, i).start) };
  });
  const all = sideBySide(
    found.map((one) => one.scores),
    1,
  );
  const ids = sideBySide(
    found.map((one) => one.ids),
    1,
  );
  const [rows, width] = all.shape;
  const { values, indices } = topk(all, Math.min(count, width));
  const starts = tensor2d(
    Int32Array.from({ length: rows }, (_, row) => row * width),
    [rows, 1],
    "int32",
  );
  return {
    scores: values,
    ids: reshape(gather(reshape(ids, [-1]), reshape(add(indices, starts), [-1])), values.shape),
  };
}

/**
 * What a teacher says of every prediction: its `count` likeliest tokens (as numbers), their log-probabilities, and that
 * of all others together: [rows, 2 · count + 1]. No gradient.
 */
export function taughtBy(x: Tensor2D, pieces: readonly Tensor2D[], asked: Asked & Softening): Tensor2D {
  const { scores, ids } = likeliestTokens(x, pieces, asked);
  const count = ids.shape[1];
  const [peak, last] = [slice(scores, [0, 0], [-1, 1]), slice(scores, [0, count - 1], [-1, 1])];
  const others = pieces.map((piece) =>
    tidy(() => {
      const z = softened(x, piece, asked);
      const isBelow = cast(less(z, last), "float32");
      const below = sum(mul(exp(sub(z, peak)), isBelow), 1, true);
      // What is as likely as the last of those that were taken, and was not.
      return add(below, mul(exp(sub(last, peak)), sum(sub(1, isBelow), 1, true)));
    }),
  );
  const rest = maximum(
    sub(
      others.reduce((a, b) => add(a, b)),
      mul(exp(sub(last, peak)), count),
    ),
    smallest,
  );
  const total = add(peak, log(add(rest, sum(exp(sub(scores, peak)), 1, true))));
  return concat([ids, sub<Tensor2D>(scores, total), sub<Tensor2D>(add(peak, log(rest)), total)], 1);
}
