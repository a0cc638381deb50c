import { addUp, sumGrid, sumParameters } from "./consensus.js";
import { f32 } from "../at.js";
import { blockOf } from "../block-names.js";
import { method, parameter, type EachPart, type SurveyPass, type Treatment } from "./types.js";

/**
 * LiNeS (Wang et al. 2025): what a merge changes counts for more in later blocks, in equal steps from the first to the
 * last. It is done to the result, whatever made it.
 */

/** The stack of blocks that a tensor is in, and its block's number; undefined outside of them. */
function placeOf(name: string): { readonly stack: string; readonly block: number } | undefined {
  const [, stack, block] = /^(.*)\.(\d+)$/.exec(blockOf(name)) ?? [];
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

/** What a tensor's change is multiplied by: 1 in the first block and outside of blocks, `lines` in the last. */
function depthFactor(name: string, lines: number, found: Depths): number {
  const place = placeOf(name);
  const last = place && found.get(place.stack);
  return last ? 1 + ((lines - 1) * place.block) / last : 1;
}

/** Treats nothing: it is here for its pass, which finds how deep the stacks are. */
export const linesTreatment: Treatment<unknown, Depths> = {
  survey: [depths],
  treat: () => () => () => {},
};

/** A merge, and what it changes multiplied by the factor of the tensor's block. @param found what the pass came to */
export function behindMerge(merge: EachPart, name: string, lines: number, found: unknown): EachPart {
  const factor = found instanceof Map ? depthFactor(name, lines, found as Depths) : 1;
  if (factor === 1) return merge;
  return (part, outs) => {
    merge(part, outs);
    for (const out of outs)
      for (let i = 0; i < out.length; i++)
        out[i] = f32(part.base, i) + factor * (f32(out, i) - f32(part.base, i));
  };
}

const about =
  "LiNeS: what the merge changes in the last block is multiplied by; in the first by 1, between in equal steps";
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
