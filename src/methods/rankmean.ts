import { at, lookUp } from "../at.js";
import { blockOf } from "../block-names.js";
import { weightedSum } from "./arrays.js";
import { addSquares } from "./geometry.js";
import { byName, zip } from "./inputs.js";
import { equalShares } from "./linear.js";
import { method, parameter, type SurveyPass } from "./types.js";

/** Tensor → ‖τ_i‖² for every input. */
type Squares = Map<string, number[]>;
/** Module → coefficients. */
type Ranked = Map<string, number[]>;

interface Ranking {
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
function rankedModule(name: string, { module }: Ranking): string | undefined {
  if (!isBlock(name)) return undefined;
  return { block: blockOf(name), linear: name.replace(/\.[^.]*$/, "") }[module];
}

/** The squares of each module's tensors, added up. */
function squaresOfModules(tensors: readonly (readonly [string, number[]])[], values: Ranking): Squares {
  const modules: Squares = new Map();
  for (const [name, squares] of tensors) {
    const module = rankedModule(name, values);
    if (module === undefined) continue;
    const sums = modules.get(module) ?? squares.map(() => 0);
    modules.set(
      module,
      zip(sums, squares).map(([sum, x]) => sum + x),
    );
  }
  return modules;
}

/**
 * RankMean (Perin et al. 2024): in each model the modules are ranked by how far they moved, 1 for the
 * least; a module is the mean of the models', weighted by its rank in each. The paper's control,
 * "reversed", is 1 / (1 + n − rank) in print and, for two models, in its authors' code, which still grows with the
 * rank: here `printed`. `reversed` is 1 + n − rank, under which the least changed weighs most.
 */
const rankModules: SurveyPass<Ranking, Squares, Ranked> = {
  start: () => new Map(),
  visit(state, tensor, { module }) {
    // Finer-grained, the paper ranks weights of linear layers: biases go with theirs, norms are averaged.
    if (module === "linear" && tensor.rows === 1) return;
    let squares = tensor.labels.map(() => 0);
    for (const { inputs } of tensor.parts()) squares = addSquares(squares, inputs);
    state.set(tensor.name, squares);
  },
  join(states, values) {
    const tensors = states.flatMap((state) => [...state]).sort(byName);
    const modules = squaresOfModules(tensors, values);
    const [[, ofFirst] = ["", []]] = tensors;
    const rankIn = ofFirst.map((_, input) => {
      const rising = [...modules].sort(([, a], [, b]) => at(a, input) - at(b, input));
      return new Map(rising.map(([id], place) => [id, place + 1]));
    });
    const coefficients = (id: string): number[] => {
      const scores = rankIn.map((rank) => weighing[values.weigh](lookUp(rank, id), modules.size));
      const total = scores.reduce((sum, x) => sum + x, 0);
      return scores.map((x) => x / total);
    };
    return new Map([...modules.keys()].map((id) => [id, coefficients(id)]));
  },
};

export const rankmeanMethod = method({
  name: "rankmean",
  about: "modules weighted by the rank of their change within each model (Perin et al. 2024)",
  works: "deltas",
  parameters: {
    module: parameter.choice(
      "block",
      ["block", "linear"],
      "what is ranked: transformer blocks, or each linear layer in them, by its weight matrix (finer-grained)",
    ),
    weigh: parameter.choice(
      "rank",
      ["rank", "printed", "reversed"],
      "by rank, by the paper's reversed control (1 / (1 + n − rank)), or the least changed most",
    ),
  },
  survey: [rankModules],
  merge({ name, labels }, values, found) {
    const module = rankedModule(name, values);
    const coefficients = (module !== undefined && found.get(module)) || equalShares(labels);
    // The coefficients add up to 1, so that Σ c_i θ_i is base + Σ c_i τ_i.
    return ({ base, inputs }, out) => weightedSum(inputs, coefficients, out, base);
  },
});
