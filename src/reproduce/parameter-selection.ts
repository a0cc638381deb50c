import { mean } from "../report/interval.js";
import { distinct, testScore, type ResultRow } from "../report/rows.js";
import { average, given, tableOf } from "./shared.js";
import type { Experiment, Lab, Produced } from "./types.js";

const resamples = [0, 1, 2, 3, 4, 9];
const name = (n: number) => (n === 0 ? "parameter-selection" : `parameter-selection, resample ${n}`);
const selections = resamples.map((resample) => given(name(resample), "parameter-selection", { resample }));
const resampled = resamples.slice(1).map(name);

const single = "sub-models, on average";
const isSingle = ({ method }: ResultRow) => method.startsWith("order ");

/** Tables 1 and 2: models of one task that saw its examples in different orders, and their merges. */
async function oneTask(lab: Lab): Promise<Produced> {
  const rows: ResultRow[] = [];
  for (const task of lab.tasks)
    rows.push(...(await lab.orders(task, [given("average", "average", {}), ...selections])));
  const singles = rows.filter(isSingle);
  const models = distinct(singles.map(({ method }) => method));
  // A row of the mean over the models, at each seed and task; and how good the best of them is.
  const means = distinct(singles.map(({ task, seed }) => `${task}\n${seed}`)).map((key) => {
    const mine = singles.filter(({ task, seed }) => `${task}\n${seed}` === key);
    return { ...mine[0]!, method: single, value: mean(mine.map(({ value }) => value)) };
  });
  const best = lab.tasks.map((task) =>
    Math.max(...models.map((model) => testScore(singles, model, task)!.mean)),
  );
  return {
    rows,
    figures: [],
    numbers: {
      [`average, ${single}`]: average(means, single)!,
      "average, sub-models, the best of each task": mean(best),
    },
    tables: [
      tableOf(
        "results",
        [...means, ...rows.filter((row) => !isSingle(row))],
        lab,
        `${models.length} models of each task, fine-tuned alike but for the order of its examples`,
      ),
      tableOf("sub-models", singles, lab, "each of those models"),
    ],
  };
}

const of = ({ rows, numbers }: Produced, method: string): number =>
  numbers?.[`average, ${method}`] ?? average(rows, method)!;

export const parameterSelection: readonly Experiment[] = [
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
      {
        text: "The weighted average is above the models that it is made of, on average",
        holds: (found) => of(found, "average") > of(found, single),
      },
      {
        text: "Parameter selection is above the models that it is made of, on average",
        holds: (found) => of(found, name(0)) > of(found, single),
      },
      {
        text: "Parameter selection is above the weighted average",
        holds: (found) => of(found, name(0)) > of(found, "average"),
      },
      {
        text: "Resampling raises parameter selection, at some n",
        holds: (found) => resampled.some((one) => of(found, one) > of(found, name(0))),
      },
    ],
  },
  {
    id: "parameter-selection/multi-task",
    what: "experts of several tasks: parameter selection with n resamples, beside the weighted average",
    minutes: [1, 4],
    claims: [
      {
        text: "Resampling raises parameter selection's average, at some n",
        holds: ({ rows }) => resampled.some((one) => average(rows, one)! > average(rows, name(0))!),
      },
      {
        text: "With resampling, at some n, parameter selection is above the weighted average",
        holds: ({ rows }) => resampled.some((one) => average(rows, one)! > average(rows, "average")!),
      },
    ],
    async run(lab) {
      const { rows } = await lab.compare("selection", ["average", "task-arithmetic", ...selections]);
      return { rows, tables: [tableOf("results", rows, lab)], figures: [] };
    },
  },
];
