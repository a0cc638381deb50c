import { at } from "../at.js";
import { mean, distinct, type ResultRow } from "../report/rows.js";
import { averageAccuracy, claim, type Findings } from "./claims.js";
import { given, resultsTable } from "./shared.js";
import type { Experiment, Lab, Produced } from "./types.js";

const resamples = [1, 2, 3, 4, 9];
const withoutResampling = "parameter-selection";
const withResampling = (n: number): string => `${withoutResampling}, resample ${n}`;
const resampled = resamples.map(withResampling);
const selections = [
  given(withoutResampling, "parameter-selection", { resample: 0 }),
  ...resamples.map((resample) => given(withResampling(resample), "parameter-selection", { resample })),
];

const subModels = "sub-models, on average";
const isSubModel = ({ method }: ResultRow) => method.startsWith("order ");

/** A row of the mean over the models, at each seed and task. */
function meanRows(rows: readonly ResultRow[]): ResultRow[] {
  const groups = new Map<string, ResultRow[]>();
  for (const row of rows) {
    const key = `${row.task}\n${row.seed}`;
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  return [...groups.values()].map((group) => ({
    ...at(group, 0),
    method: subModels,
    value: mean(group.map(({ value }) => value)),
  }));
}

/** Tables 1 and 2: models of one task that saw its examples in different orders, and their merges. */
async function oneTask(lab: Lab): Promise<Produced> {
  const rows: ResultRow[] = [];
  for (const task of lab.tasks)
    rows.push(...(await lab.orders(task, [given("average", "average", {}), ...selections])));
  const singles = rows.filter(isSubModel);
  const models = distinct(singles.map(({ method }) => method));
  const means = meanRows(singles);
  // How good the best of them is.
  const best = lab.tasks.map((task) =>
    Math.max(...models.map((model) => averageAccuracy(singles, model, [task]))),
  );
  return {
    rows,
    figures: [],
    numbers: {
      [averageName(subModels)]: averageAccuracy(means, subModels),
      "average, sub-models, the best of each task": mean(best),
    },
    tables: [
      resultsTable(
        "results",
        [...means, ...rows.filter((row) => !isSubModel(row))],
        lab,
        `${models.length} models of each task, fine-tuned alike but for the order of its examples`,
      ),
      resultsTable("sub-models", singles, lab, "each of those models"),
    ],
  };
}

const averageName = (method: string): string => `average, ${method}`;

/** Of the sub-models there is an average alone. */
const averageAmong = ({ numbers, average }: Findings, method: string): number =>
  numbers[averageName(method)] ?? average(method);

export const parameterSelectionExperiments: readonly Experiment[] = [
  {
    id: "parameter-selection/single-task",
    what:
      "one task, several orders of its examples: the models' weighted average and parameter " +
      "selection with n resamples",
    minutes: [5, 15],
    models: 18,
    trains: true,
    run: oneTask,
    claims: [
      claim(
        "The weighted average is above the models that it is made of, on average",
        (found) => averageAmong(found, "average") > averageAmong(found, subModels),
      ),
      claim(
        "Parameter selection is above the models that it is made of, on average",
        (found) => averageAmong(found, withoutResampling) > averageAmong(found, subModels),
      ),
      claim(
        "Parameter selection is above the weighted average",
        (found) => averageAmong(found, withoutResampling) > averageAmong(found, "average"),
      ),
      claim("Resampling raises parameter selection, at some n", (found) =>
        resampled.some((one) => averageAmong(found, one) > averageAmong(found, withoutResampling)),
      ),
    ],
  },
  {
    id: "parameter-selection/multi-task",
    what: "experts of several tasks: parameter selection with n resamples, beside the weighted average",
    minutes: [1, 4],
    claims: [
      claim("Resampling raises parameter selection's average, at some n", ({ average }) =>
        resampled.some((one) => average(one) > average(withoutResampling)),
      ),
      claim("With resampling, at some n, parameter selection is above the weighted average", ({ average }) =>
        resampled.some((one) => average(one) > average("average")),
      ),
    ],
    async run(lab) {
      const { rows } = await lab.compare("selection", ["average", "task-arithmetic", ...selections]);
      return { rows, tables: [resultsTable("results", rows, lab)], figures: [] };
    },
  },
];
