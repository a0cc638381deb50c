import { dot } from "./geometry.js";
import { weightedSum } from "./linear.js";
import { flag, method, number, numbers, type Pass } from "./types.js";

interface Values {
  readonly unit: boolean;
}

/** ‖F_i‖ over all tensors, for `unit`. Squares are kept by tensor, to be added in the order of the names. */
const norms: Pass<Values, Map<string, number[]>, number[]> = {
  start: () => new Map(),
  visit(state, tensor, { unit }) {
    if (!unit) return;
    const sums = tensor.labels.map(() => 0);
    for (const { statistics } of tensor.parts()) statistics?.forEach((f, i) => (sums[i]! += dot(f, f)));
    state.set(tensor.name, sums);
  },
  join(states, { unit }) {
    if (!unit) return [];
    const all = states.flatMap((state) => [...state]).sort(([a], [b]) => (a < b ? -1 : 1));
    return (all[0]?.[1] ?? []).map((_, i) =>
      Math.sqrt(all.reduce((sum, [, squares]) => sum + squares[i]!, 0)),
    );
  },
};

export const fisher = method({
  name: "fisher",
  about: "entries weighted by their Fisher information on validation inputs (Matena & Raffel 2022)",
  works: "values",
  needs: "fisher",
  baseless: true,
  parameters: {
    weight: numbers(1, "weight of each model beside its Fisher information"),
    unit: flag(false, "scale each model's Fisher information to unit L2 norm first"),
    floor: number(1e-6, "least information that an entry counts with", 0),
  },
  survey: [norms],
  merge: ({ labels }, { weight, unit, floor }, found) => {
    const scales = labels.map((_, i) => (unit ? 1 / (found[i]! || 1) : 1));
    const total = weight.reduce((sum, w) => sum + w, 0);
    return (part, out) => {
      const { inputs, statistics } = part;
      if (!statistics) {
        // Nobody's loss depends on it: all of it at the floor.
        weightedSum(
          part,
          weight.map((w) => w / total),
          out,
        );
        return;
      }
      for (let at = 0; at < out.length; at++) {
        let [sum, share] = [0, 0];
        for (let i = 0; i < inputs.length; i++) {
          const f = weight[i]! * Math.max(floor, statistics[i]![at]! * scales[i]!);
          sum += f * inputs[i]![at]!;
          share += f;
        }
        out[at] = sum / share;
      }
    };
  },
});
