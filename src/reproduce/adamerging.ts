import { at } from "../at.js";
import { mean } from "../report/rows.js";
import { linesSpec } from "../report/lines.js";
import { readLog } from "../folder/files.js";
import { bestOf, claim } from "./claims.js";
import { firstSeed, resultsTable } from "./shared.js";
import type { Experiment, Lab, Produced } from "./types.js";

const layerWise = "adamerging";
const taskWise = "adamerging-task-wise";

/** A method's average accuracy on the validation examples, at the steps where it was scored. */
interface Curve {
  readonly name: string;
  readonly steps: readonly { readonly step: number; readonly accuracy: number }[];
}

async function readCurve(name: string, folder: string): Promise<Curve> {
  const log = await readLog(folder);
  return {
    name,
    steps: log.flatMap(({ step, validation }) =>
      validation ? [{ step, accuracy: mean(validation.accuracy) }] : [],
    ),
  };
}

const gainOf = (name: string): string => `gain, ${name}`;
const endOf = (name: string): string => `validation at the end, ${name}`;

async function trainingCurves(lab: Lab): Promise<Produced> {
  const seed = firstSeed(lab);
  const names = [layerWise, taskWise];
  const { rows, folder } = await lab.compare("curve", names, { keep: true, seeds: [seed] });
  const curves = await Promise.all(names.map((name) => readCurve(name, folder(name, seed))));
  const points = curves.flatMap(({ name, steps }) =>
    steps.map(({ step, accuracy }) => ({ x: step, y: 100 * accuracy, series: name })),
  );
  const numbers = curves.flatMap(({ name, steps }) => {
    const [first, last] = [at(steps, 0).accuracy, at(steps, -1).accuracy];
    return [
      [gainOf(name), last - first],
      [endOf(name), last],
    ] as const;
  });
  return {
    rows,
    seeds: [seed],
    numbers: Object.fromEntries(numbers),
    tables: [resultsTable("results", rows, lab)],
    figures: [
      {
        name: "curve",
        title: "Average accuracy on the validation examples along the training",
        spec: linesSpec({
          title: "",
          x: "step",
          y: "average accuracy, %",
          spacing: "linear",
          zero: false,
          points,
        }),
      },
    ],
  };
}

export const adamergingExperiments: readonly Experiment[] = [
  {
    id: "adamerging/curve",
    what: "accuracy along AdaMerging's training, layer-wise and task-wise",
    minutes: [7, 40],
    models: 3,
    claims: [
      bestOf("Layer-wise is above task-wise at the end, on the test examples", layerWise, [taskWise]),
      claim(
        "Layer-wise is above task-wise at the end, on the validation examples that they adapted to",
        ({ number }) => number(endOf(layerWise)) > number(endOf(taskWise)),
      ),
      claim(
        "Layer-wise training raises the accuracy on the validation examples",
        ({ number }) => number(gainOf(layerWise)) > 0,
      ),
    ],
    run: trainingCurves,
  },
];
