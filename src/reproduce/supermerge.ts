import { figure5 } from "./supermerge-coefficients.js";
import { table5 } from "./supermerge-cost.js";
import { figure2, figure3 } from "./supermerge-figures.js";
import { table1, table2, table3, table4, table6 } from "./supermerge-tables.js";
import type { Experiment } from "./types.js";

export const supermergeExperiments: readonly Experiment[] = [
  table1,
  table2,
  table3,
  table4,
  table5,
  table6,
  figure2,
  figure3,
  figure5,
];
