import { f32 } from "../at.js";
import { addUp, sumGrid, sumParameters } from "./consensus.js";
import { thresholdPasses, type Thresholds } from "./global.js";
import { zip } from "./inputs.js";
import { ofRanks } from "./select.js";
import { rescales } from "./sparsify.js";
import { entryCount, method, parameter, type Part, type Treatment } from "./types.js";

/**
 * The paper's control to DARE: the entries that are not larger than the ⌊d · p⌋-th smallest are
 * dropped, the rest is left as it is.
 * @returns that one's rank, from the largest; undefined where none is dropped
 */
function droppedRank(size: number, p: number): number | undefined {
  const dropped = Math.floor(size * p);
  if (dropped === 0) return undefined;
  return size - dropped + 1;
}

interface Pruned {
  readonly p: readonly number[];
}

/** Drops, in each input, what is not larger than its limit; where it has none, nothing. */
const keepAbove =
  (limits: readonly (number | undefined)[]) =>
  ({ inputs }: Part): void => {
    for (const [delta, limit] of zip(inputs, limits)) {
      if (limit === undefined) continue;
      for (let i = 0; i < delta.length; i++) if (Math.abs(f32(delta, i)) <= limit) delta[i] = 0;
    }
  };

const pruneModel: Treatment<Pruned, Thresholds> = {
  survey: thresholdPasses(
    ({ p }: Pruned) => p,
    (size, p) => droppedRank(size, p) ?? size,
  ),
  treat(_, { p }, { thresholds, size }) {
    const limits = zip(thresholds, p).map(([limit, part]) => droppedRank(size, part) && limit);
    return () => keepAbove(limits);
  },
};

const pruneTensor: Treatment<Pruned> = {
  treat(tensor, { p }) {
    const size = entryCount(tensor);
    const ranks = p.map((part) => [droppedRank(size, part)].filter((rank) => rank !== undefined));
    const limits = ofRanks(tensor, ranks).map(([limit]) => limit?.magnitude);
    return () => keepAbove(limits);
  },
};

export const magnitudePruningMethod = method({
  name: "magnitude-pruning",
  about: "the smallest entries of each task vector dropped, the rest added up (the control of DARE's paper)",
  works: "deltas",
  scaled: true,
  grid: { lambda: sumGrid },
  parameters: {
    ...sumParameters(false, 0.3),
    p: parameter.numbers(0.9, "part of each task vector, the smallest, that is dropped", 0, 1),
    over: parameter.choice(
      "model",
      ["model", "tensor"],
      "whether the smallest of all tensors together are dropped, or of each",
    ),
  },
  treatments: ({ over }) => [{ model: pruneModel, tensor: pruneTensor }[over]],
  merge: (_, values) => addUp(values),
});

/** What `--dare-p` puts in front of any method. */
export const dareParameters = {
  dareP: parameter.numbers(
    0,
    "DARE in front of the method: the chance of an entry of a task vector to be dropped",
    0,
    1,
  ),
  rescale: parameter.choice(
    "inverse",
    rescales,
    "what DARE does with the rest: times 1 / (1 − p), times the ratio of L1 norms (mergekit), or nothing (DropOnly)",
  ),
  seed: parameter.number(0, "draws what is dropped or chosen"),
};

export const dareMethod = method({
  name: "dare",
  about: "entries of task vectors dropped at random and the rest rescaled, then added up (Yu et al. 2024)",
  works: "deltas",
  scaled: true,
  grid: { lambda: sumGrid },
  parameters: {
    ...sumParameters(false, 0.3),
    ...dareParameters,
    dareP: { ...dareParameters.dareP, default: 0.9 },
  },
  merge: (_, values) => addUp(values),
});
