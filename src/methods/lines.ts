import { scaleBy } from "./arrays.js";
import { addUp, sumGrid, sumParameters } from "./consensus.js";
import { method, parameter, type SurveyPass, type Treatment } from "./types.js";

/** LiNeS (Wang et al. 2025): task vectors of later blocks count for more, in equal steps from the first to the last. */

/** The stack of blocks that a tensor is in, and its block's number; undefined outside of them. */
function placeOf(name: string): { readonly stack: string; readonly block: number } | undefined {
  const [, stack, block] = /^(.*?)\.(\d+)\./.exec(name) ?? [];
  return stack === undefined ? undefined : { stack, block: Number(block) };
}

/** The last block's number of every stack. */
type Depths = ReadonlyMap<string, number>;

const depths: SurveyPass<unknown, Map<string, number>, Depths> = {
  start: () => new Map(),
  visit(state, { name }) {
    const place = placeOf(name);
    if (place) state.set(place.stack, Math.max(place.block, state.get(place.stack) ?? 0));
  },
  join(states) {
    const all = new Map<string, number>();
    for (const [stack, last] of states.flatMap((state) => [...state]))
      all.set(stack, Math.max(last, all.get(stack) ?? 0));
    return all;
  },
};

/** What a tensor's task vectors are multiplied by: 1 in the first block and outside of blocks, `lines` in the last. */
function depthFactor(name: string, lines: number, found: Depths): number {
  const place = placeOf(name);
  const last = place && found.get(place.stack);
  return last ? 1 + ((lines - 1) * place.block) / last : 1;
}

export const linesTreatment = (lines: number): Treatment<unknown, Depths> => ({
  survey: [depths],
  treat({ name }, _, found) {
    const factor = depthFactor(name, lines, found);
    return () =>
      ({ inputs }) => {
        for (const x of inputs) scaleBy(x, factor);
      };
  },
});

const about =
  "LiNeS: what the last block's task vectors are multiplied by; the first's by 1, between in equal steps";
export const linesParameters = { lines: parameter.number(1, about, 0) };

export const linesMethod = method({
  name: "lines",
  about: "task arithmetic that changes later blocks more (Wang et al. 2025)",
  works: "deltas",
  scaled: true,
  grid: { lambda: sumGrid, lines: [1, 1.5, 2, 3, 4, 6] },
  parameters: { ...sumParameters(false, 0.3), lines: parameter.number(3, about, 0) },
  merge: (_, values) => addUp(values),
});
