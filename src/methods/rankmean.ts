import { blockOf } from "../merge/layers.js";
import { dot } from "./geometry.js";
import { weightedSum } from "./linear.js";
import { choice, method, type Pass } from "./types.js";

/** Tensor → ‖τ_i‖² for every input. */
type Squares = Map<string, number[]>;
/** Module → coefficients. */
type Ranked = Map<string, number[]>;

interface Values {
  readonly module: "block" | "linear";
  readonly weigh: "rank" | "printed" | "reversed";
}

const weighing = {
  rank: (rank: number) => rank,
  printed: (rank: number, n: number) => 1 / (1 + n - rank),
  reversed: (rank: number, n: number) => 1 + n - rank,
};

const isBlock = (name: string): boolean => blockOf(name) !== name.split(".")[0];

/** What a tensor's module is called; undefined where it is in none: then it is averaged. */
function moduleOf(name: string, { module }: Values): string | undefined {
  if (!isBlock(name)) return undefined;
  return module === "block" ? blockOf(name) : name.replace(/\.[^.]*$/, "");
}

/**
 * RankMean (Perin et al. 2024): in each model the modules are ranked by how far they moved, 1 for the
 * least; a module is the mean of the models', weighted by its rank in each. The paper's control,
 * "reversed", is printed as 1 / (1 + n − rank), which still grows with the rank; `reversed` here is 1 +
 * n − rank.
 */
const ranks: Pass<Values, Squares, Ranked> = {
  start: () => new Map(),
  visit(state, tensor) {
    const sums = tensor.labels.map(() => 0);
    for (const { inputs } of tensor.parts()) inputs.forEach((delta, i) => (sums[i]! += dot(delta, delta)));
    state.set(tensor.name, sums);
  },
  join(states, values) {
    // In the order of the names: a sum of floats must not depend on which thread was first.
    const tensors = states.flatMap((state) => [...state]).sort(([a], [b]) => (a < b ? -1 : 1));
    const modules = new Map<string, number[]>();
    for (const [name, squares] of tensors) {
      const module = moduleOf(name, values);
      if (module === undefined) continue;
      const sums = modules.get(module) ?? squares.map(() => 0);
      modules.set(
        module,
        sums.map((sum, i) => sum + squares[i]!),
      );
    }
    const ids = [...modules.keys()];
    const k = tensors[0]?.[1].length ?? 0;
    const rankOf = Array.from(
      { length: k },
      (_, i) =>
        new Map(
          [...ids].sort((a, b) => modules.get(a)![i]! - modules.get(b)![i]!).map((id, at) => [id, at + 1]),
        ),
    );
    return new Map(
      ids.map((id) => {
        const scores = rankOf.map((rank) => weighing[values.weigh](rank.get(id)!, ids.length));
        const total = scores.reduce((sum, x) => sum + x, 0);
        return [id, scores.map((x) => x / total)];
      }),
    );
  },
};

export const rankmean = method({
  name: "rankmean",
  about: "modules weighted by the rank of their change within each model (Perin et al. 2024)",
  works: "deltas",
  parameters: {
    module: choice(
      "block",
      ["block", "linear"],
      "what is ranked: transformer blocks, or each layer in them (the paper's finer-grained)",
    ),
    weigh: choice(
      "rank",
      ["rank", "printed", "reversed"],
      "by rank, by the paper's control as printed (1 / (1 + n − rank)), or the least changed most",
    ),
  },
  survey: [ranks],
  merge({ name, labels }, values, found) {
    const module = moduleOf(name, values);
    const coefficients = (module !== undefined && found.get(module)) || labels.map(() => 1 / labels.length);
    // The coefficients add up to 1, so that Σ c_i θ_i is base + Σ c_i τ_i.
    return (part, out) => weightedSum(part, coefficients, out, part.base);
  },
});
