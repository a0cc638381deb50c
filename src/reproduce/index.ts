/**
 * Every table and figure that has a command: one is an entry in one of these lists, with a folder in
 * experiments/.
 */
import { UserError } from "../errors.js";
import { nearest } from "../nearest.js";
import { ablations } from "./ablations.js";
import { adamerging } from "./adamerging.js";
import { atScale } from "./at-scale.js";
import { dare } from "./dare.js";
import { parameterSelection } from "./parameter-selection.js";
import { rankmean } from "./rankmean.js";
import { supermerge } from "./supermerge.js";
import type { Experiment } from "./types.js";

export const experiments: readonly Experiment[] = [
  ...supermerge,
  ...adamerging,
  ...dare,
  ...rankmean,
  ...parameterSelection,
  ...atScale,
  ...ablations,
];

/** @throws UserError naming the nearest that there is */
export function experimentOf(id: string): Experiment {
  const found = experiments.find((one) => one.id === id);
  if (!found)
    throw new UserError(
      `there is no experiment "${id}"${nearest(
        id,
        experiments.map((one) => one.id),
      )}; \`train-merge reproduce --list\` lists them`,
    );
  return found;
}
