/** A mixture of experts in place of a feed-forward: a router sends a token to some of many (Shazeer et al. 2017). */
import {
  add,
  cast,
  div,
  gather,
  getBackend,
  mul,
  oneHot,
  reshape,
  slice,
  softmax,
  sub,
  sum,
  tensor1d,
  topk,
  unsortedSegmentSum,
  type Tensor2D,
} from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { dense, denseShapes, type DenseOptions, type NamedShape } from "./layers.js";
import { concatenated, op, plus, rows, times } from "./ops.js";
import type { Weights } from "./types.js";

export interface Mixture {
  readonly experts: number;
  /** How many experts a token is sent to. */
  readonly chosen: number;
  /** An expert's inner width. */
  readonly inner: number;
  /** Whether the chosen experts' weights are divided by their sum. */
  readonly isNormalised: boolean;
}

interface MixtureOptions {
  readonly width: number;
  readonly mixture: Mixture;
  readonly activation: (x: Tensor2D) => Tensor2D;
}

const bare: DenseOptions = { bare: true };

/** 1 for the likeliest of every row [n, experts], 0 for the others. */
function likeliest(p: Tensor2D, count: number): Tensor2D {
  const { indices } = topk(p, count);
  const columns = Array.from({ length: count }, (_, i) => reshape(slice(indices, [0, i], [-1, 1]), [-1]));
  return columns
    .map((column) => cast<Tensor2D>(oneHot(column, p.shape[1]) as Tensor2D, "float32"))
    .reduce((a, b) => add(a, b));
}

/**
 * What each expert's answer counts for: the softmax of the router's logits [n, experts], 0 for all but the likeliest.
 * Which those are has no gradient; what they count for has.
 */
function chosenWeights(logits: Tensor2D, { chosen, isNormalised }: Mixture): Tensor2D {
  return op(
    [logits],
    ([router]) => {
      const p = softmax(router);
      const kept = mul<Tensor2D>(p, likeliest(p, chosen));
      // Divided by its sum, it is the softmax of the chosen ones' logits alone.
      const value = isNormalised ? div<Tensor2D>(kept, sum(kept, 1, true)) : kept;
      return { value, saved: [value, isNormalised ? value : p] };
    },
    (dy, [value, over]) => {
      const weighed = mul(dy, value);
      return [sub(weighed, mul(over, sum(weighed, 1, true)))];
    },
  );
}

/** Row t times weights[t, column]: rows [m, width], weights [m, experts]. */
function weighted(parts: Tensor2D, weights: Tensor2D, column: number): Tensor2D {
  const columns = weights.shape[1];
  return op(
    [parts, weights],
    ([x, w]) => {
      const factor = slice(w, [0, column], [-1, 1]);
      return { value: mul<Tensor2D>(x, factor), saved: [x, factor] };
    },
    (dy, [x, factor]) => [
      mul(dy, factor),
      mul(sum(mul(dy, x), 1, true), cast(oneHot(tensor1d([column], "int32"), columns), "float32")),
    ],
  );
}

/** Rows [m, width] added up where they belong: row i to row ids[i] of [count, width]. */
function addedUp(parts: Tensor2D, ids: readonly number[], count: number): Tensor2D {
  const where = tensor1d(Int32Array.from(ids), "int32");
  return op(
    [parts],
    ([input]) => ({ value: unsortedSegmentSum<Tensor2D>(input, where, count), saved: [where] }),
    (dy, [saved]) => [gather(dy, saved)],
  );
}

/** Which tokens each expert is asked about; undefined where the engine cannot say so while it computes. */
function tokensByExpert(weights: Tensor2D): number[][] | undefined {
  // WebGPU's numbers come back later than they are needed here.
  if (getBackend() === "webgpu") return undefined;
  const [tokens, experts] = weights.shape;
  const values = weights.dataSync();
  return Array.from({ length: experts }, (_, e) =>
    Array.from({ length: tokens }, (_, t) => t).filter((t) => values[t * experts + e] !== 0),
  );
}

/**
 * A layer's router and experts, each expert's matrices by themselves, as checkpoints have them. Where the engine can
 * say which tokens an expert is asked about, it reads no others.
 */
export function mixtureOfExperts({ width, mixture, activation }: MixtureOptions, layer: string) {
  const { experts, inner } = mixture;
  const gate = `${layer}.mlp.gate`;
  const module = (expert: number, name: string) => `${layer}.mlp.experts.${expert}.${name}_proj`;
  const shapes: NamedShape[] = [
    ...denseShapes(gate, experts, width, bare),
    ...Array.from({ length: experts }, (_, e) => [
      ...denseShapes(module(e, "gate"), inner, width, bare),
      ...denseShapes(module(e, "up"), inner, width, bare),
      ...denseShapes(module(e, "down"), width, inner, bare),
    ]).flat(),
  ];
  /** An expert's answers to some tokens, each times what it counts for. */
  const answers = (w: Weights, x: Tensor2D, weights: Tensor2D, e: number): Tensor2D => {
    const gated = times(activation(dense(w, x, module(e, "gate"), bare)), dense(w, x, module(e, "up"), bare));
    return weighted(dense(w, gated, module(e, "down"), bare), weights, e);
  };
  const run = (w: Weights, x: Tensor2D): Tensor2D => {
    const weights = chosenWeights(dense(w, x, gate, bare), mixture);
    const asked = tokensByExpert(weights);
    const all = Array.from({ length: experts }, (_, e) => e);
    if (!asked) return all.map((e) => answers(w, x, weights, e)).reduce(plus);
    const busy = all.filter((e) => at(asked, e).length > 0);
    const parts = busy.map((e) => {
      const ids = tensor1d(at(asked, e), "int32");
      return answers(w, rows(x, ids), rows(weights, ids), e);
    });
    return addedUp(
      concatenated(parts, 0),
      busy.flatMap((e) => at(asked, e)),
      x.shape[0],
    );
  };
  return { shapes, run };
}
