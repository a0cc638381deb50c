/**
 * Every table and figure that has a command: one is an entry in one of these lists, with a folder in
 * experiments/.
 */
import { UserError } from "../errors.js";
import { nearest } from "../nearest.js";
import { ablationExperiments } from "./ablations.js";
import { adamergingExperiments } from "./adamerging.js";
import { atScaleExperiments } from "./at-scale.js";
import { dareExperiments } from "./dare.js";
import { parameterSelectionExperiments } from "./parameter-selection.js";
import { rankmeanExperiments } from "./rankmean.js";
import { supermergeExperiments } from "./supermerge.js";
import type { Experiment } from "./types.js";

export const experiments: readonly Experiment[] = [
  ...supermergeExperiments,
  ...adamergingExperiments,
  ...dareExperiments,
  ...rankmeanExperiments,
  ...parameterSelectionExperiments,
  ...atScaleExperiments,
  ...ablationExperiments,
];

/** @throws UserError naming the nearest that there is */
export function experimentOf(id: string): Experiment {
  const found = experiments.find((one) => one.id === id);
  if (found) return found;
  const ids = experiments.map((one) => one.id);
  throw new UserError(
    `there is no experiment "${id}"${nearest(id, ids)}; \`train-merge reproduce --list\` lists them`,
  );
}
