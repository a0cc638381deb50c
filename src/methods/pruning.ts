import { addUp, lambda, sumGrid } from "./consensus.js";
import { thresholdPasses, type Thresholds } from "./global.js";
import { rescales } from "./sparsify.js";
import { choice, flag, method, number, numbers, sizeOf, type Treatment } from "./types.js";
import { ofRanks } from "./select.js";

/**
 * The paper's control to DARE: the entries that are not larger than the ⌊d · p⌋-th smallest are
 * dropped, the rest is left as it is.
 */
const droppedRank = (size: number, p: number): number => size - Math.floor(size * p) + 1;

interface Pruned {
  readonly p: readonly number[];
}

function keepAbove(thresholds: readonly (number | undefined)[]): ReturnType<Treatment["treat"]> {
  return () =>
    ({ inputs }) => {
      for (const [n, delta] of inputs.entries()) {
        const limit = thresholds[n];
        if (limit === undefined) continue;
        for (let i = 0; i < delta.length; i++) if (Math.abs(delta[i]!) <= limit) delta[i] = 0;
      }
    };
}

const dropsAny = (size: number, p: number): boolean => Math.floor(size * p) > 0;

const pruneModel: Treatment<Pruned, Thresholds> = {
  survey: thresholdPasses((size, { p }, input) => Math.min(size, droppedRank(size, p[input]!))),
  treat: (_, { p }, { thresholds, size }) =>
    keepAbove(thresholds.map((limit, i) => (dropsAny(size, p[i]!) ? limit : undefined))),
};

const pruneTensor: Treatment<Pruned> = {
  treat: (tensor, { p }) => {
    const size = sizeOf(tensor);
    return keepAbove(
      ofRanks(
        tensor,
        p.map((part) => (dropsAny(size, part) ? [droppedRank(size, part)] : [])),
      ).map(([limit]) => limit?.magnitude),
    );
  },
};

const combination = {
  weight: numbers(1, "weight of each model's task vector"),
  lambda: lambda(0.3),
  normalize: flag(false, "divide by the sum of the weights"),
};

export const magnitudePruning = method({
  name: "magnitude-pruning",
  about: "the smallest entries of each task vector dropped, the rest added up (the control of DARE's paper)",
  works: "deltas",
  scaled: true,
  grid: { lambda: sumGrid },
  parameters: {
    ...combination,
    p: numbers(0.9, "part of each task vector, the smallest, that is dropped", 0, 1),
    over: choice(
      "model",
      ["model", "tensor"],
      "whether the smallest of all tensors together are dropped, or of each",
    ),
  },
  treatments: ({ over }) => [over === "model" ? pruneModel : pruneTensor],
  merge: (_, values) => addUp(values),
});

/** What `--dare-p` puts in front of any method. */
export const dareParameters = {
  dareP: numbers(
    0,
    "DARE in front of the method: the chance of an entry of a task vector to be dropped",
    0,
    1,
  ),
  rescale: choice(
    "inverse",
    rescales,
    "what DARE does with the rest: times 1 / (1 − p), times the ratio of L1 norms (mergekit), or nothing (DropOnly)",
  ),
  seed: number(0, "draws what is dropped or chosen"),
};

export const dare = method({
  name: "dare",
  about: "entries of task vectors dropped at random and the rest rescaled, then added up (Yu et al. 2024)",
  works: "deltas",
  scaled: true,
  grid: { lambda: sumGrid },
  parameters: { ...combination, ...dareParameters, dareP: { ...dareParameters.dareP, default: 0.9 } },
  merge: (_, values) => addUp(values),
});
