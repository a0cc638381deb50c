import { f32, f64 } from "../at.js";
import { scratchDoubles, weightedSum } from "./arrays.js";
import { addSquares } from "./geometry.js";
import { byName, zip } from "./inputs.js";
import { method, parameter, type SurveyPass } from "./types.js";

/** ‖F_i‖ over all tensors, for `unit`. Squares are kept by tensor, to be added in the order of the names. */
const norms: SurveyPass<{ readonly unit: boolean }, Map<string, number[]>, number[]> = {
  start: () => new Map(),
  visit(state, tensor, { unit }) {
    if (!unit) return;
    let squares = tensor.labels.map(() => 0);
    for (const { statistics } of tensor.parts()) if (statistics) squares = addSquares(squares, statistics);
    state.set(tensor.name, squares);
  },
  join(states) {
    const all = states.flatMap((state) => [...state]).sort(byName);
    const [first, ...rest] = all.map(([, squares]) => squares);
    if (!first) return [];
    return rest.reduce((sums, squares) => zip(sums, squares).map(([a, b]) => a + b), first).map(Math.sqrt);
  },
};

export const fisherMethod = method({
  name: "fisher",
  about: "entries weighted by their Fisher information on validation inputs (Matena & Raffel 2022)",
  works: "values",
  needs: "fisher",
  baseless: true,
  parameters: {
    weight: parameter.numbers(1, "weight of each model beside its Fisher information"),
    unit: parameter.flag(false, "scale each model's Fisher information to unit L2 norm first"),
    floor: parameter.number(1e-6, "least information that an entry counts with", 0),
  },
  survey: [norms],
  merge: ({ labels }, { weight, floor }, found) => {
    // Without `unit` no norms were found.
    const scales = labels.map((_, i) => 1 / (found[i] || 1));
    const total = weight.reduce((sum, w) => sum + w, 0);
    // Nobody's loss depends on a tensor without statistics: all of it is at the floor.
    const alike = weight.map((w) => w / total);
    const [sumsOf, sharesOf] = [scratchDoubles(), scratchDoubles()];
    return ({ inputs, statistics }, out) => {
      if (!statistics) {
        weightedSum(inputs, alike, out);
        return;
      }
      const [sums, shares] = [sumsOf(out.length).fill(0), sharesOf(out.length).fill(0)];
      for (const [[x, fisher], [w, scale]] of zip(zip(inputs, statistics), zip(weight, scales))) {
        for (let at = 0; at < out.length; at++) {
          const f = w * Math.max(floor, f32(fisher, at) * scale);
          sums[at] = f64(sums, at) + f * f32(x, at);
          shares[at] = f64(shares, at) + f;
        }
      }
      for (let at = 0; at < out.length; at++) out[at] = f64(sums, at) / f64(shares, at);
    };
  },
});
