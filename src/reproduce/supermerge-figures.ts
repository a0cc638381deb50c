/** SuperMerge's figures 2 and 3; 5 is in supermerge-coefficients.ts. */
import { at, f32 } from "../at.js";
import { UserError } from "../errors.js";
import { linesSpec } from "../report/lines.js";
import { violinsSpec } from "../report/violins.js";
import { averageAccuracy, claim, numberNamed, type Findings } from "./claims.js";
import { given, resultsTable } from "./shared.js";
import type { CaptionedTable, Experiment, Figure, Lab, Produced } from "./types.js";

const lambdas = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
/** Methods that have a λ, and what they are given beside it. */
const sweptMethods = {
  "task-arithmetic": { method: "task-arithmetic", values: {} },
  ties: { method: "ties", values: {} },
  dare: { method: "dare", values: {} },
  "dare-ties": { method: "ties", values: { dareP: 0.9 } },
} as const;
const atLambda = (name: string, lambda: number): string => `${name}, λ ${lambda}`;

/** Figure 2: the average against λ, which has to be searched. */
async function lambdaSweep(lab: Lab): Promise<Produced> {
  const candidates = Object.entries(sweptMethods).flatMap(([name, { method, values }]) =>
    lambdas.map((lambda) => given(atLambda(name, lambda), method, { ...values, lambda })),
  );
  const { rows } = await lab.compare("lambda", [...candidates, "supermerge"]);
  const percent = (method: string) => 100 * averageAccuracy(rows, method, lab.tasks);
  const points = Object.keys(sweptMethods).flatMap((name) =>
    lambdas.map((lambda) => ({ x: lambda, y: percent(atLambda(name, lambda)), series: name })),
  );
  const line = percent("supermerge");
  const lead = line - Math.max(...points.map(({ y }) => y));
  const ends = [Math.min(...lambdas), Math.max(...lambdas)];
  return {
    rows,
    tables: [
      resultsTable(
        "results",
        rows.filter(({ method }) => method !== "individual"),
        lab,
        `SuperMerge is ${Math.abs(lead).toFixed(1)} points ${lead > 0 ? "above" : "below"} the ` +
          "best of the others at any of these λ",
      ),
    ],
    figures: [
      {
        name: "lambda",
        title: "Average accuracy against λ (SuperMerge has none)",
        spec: linesSpec({
          title: "",
          x: "λ",
          y: "average accuracy, %",
          spacing: "linear",
          zero: false,
          points: [...points, ...ends.map((x) => ({ x, y: line, series: "supermerge" }))],
        }),
      },
    ],
  };
}

/** A method's averages, λ by λ. */
const alongLambda = ({ average }: Findings, name: string, { tasks }: Lab): number[] =>
  lambdas.map((lambda) => average(atLambda(name, lambda), tasks));

export const figure2: Experiment = {
  id: "supermerge/figure-2",
  what: "the average against λ",
  minutes: [1, 12],
  run: lambdaSweep,
  claims: [
    claim(
      "λ must be searched: between the best and the worst lie more than five points, for every " +
        "method that has one",
      (found, lab) =>
        Object.keys(sweptMethods).every((name) => {
          const values = alongLambda(found, name, lab);
          return Math.max(...values) - Math.min(...values) > 0.05;
        }),
    ),
    claim("DARE and TIES fall on both sides of their best λ, by more than two points", (found, lab) =>
      ["dare", "ties"].every((name) => {
        const values = alongLambda(found, name, lab);
        return Math.max(...values) - Math.max(at(values, 0), at(values, -1)) > 0.02;
      }),
    ),
  ],
};

/** Some of the entries of a layer's task vector, by expert. */
interface LayerSample {
  readonly layer: string;
  readonly samples: readonly (readonly number[])[];
}

/** Some hundred entries of every weight matrix, evenly: they show how it is spread. */
async function sampleLayers(lab: Lab): Promise<LayerSample[]> {
  const found: LayerSample[] = [];
  for await (const { name, base, deltas } of lab.tensors()) {
    if (!name.endsWith("weight") || base.length < 256) continue;
    const step = Math.max(1, Math.floor(base.length / 400));
    const count = Math.floor(base.length / step);
    const samples = deltas.map((delta) => Array.from({ length: count }, (_, i) => f32(delta, i * step)));
    found.push({ layer: name, samples });
  }
  return found;
}

const isStill = ({ samples }: LayerSample): boolean =>
  samples.some((values) => values.every((value) => value === 0));

const rootMeanSquare = (values: readonly number[]): number =>
  Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);

const largestOverSmallest = (values: readonly number[]): number => Math.max(...values) / Math.min(...values);

const mostUnlike = "largest over smallest expert, of one layer";
const layerRatio = (task: string): string => `largest over smallest layer, ${task}`;

function spreadTable(lab: Lab, numbers: Readonly<Record<string, number>>, still: number): CaptionedTable {
  const left = still ? `. ${still} layers that did not move in some expert are left out` : "";
  return {
    name: "spread",
    caption:
      "root mean square of the task vectors' entries: the layer with the most over the one " +
      "with the least; in the last row, of one layer, the expert with the most over the one " +
      `with the least${left}`,
    table: {
      head: ["expert", "ratio"],
      body: [
        ...lab.tasks.map((task) => [task, numberNamed(numbers, layerRatio(task)).toFixed(1)]),
        ["the layer in which they differ most", numberNamed(numbers, mostUnlike).toFixed(1)],
      ],
    },
  };
}

/** Figure 3: how task vectors are spread, layer by layer. */
async function violins(lab: Lab): Promise<Produced> {
  const layers = await sampleLayers(lab);
  // Frozen embeddings have no shape to draw.
  const moved = layers.filter((layer) => !isStill(layer));
  if (moved.length === 0)
    throw new UserError("no weight matrix is changed by every expert: there is nothing to draw");
  const spreads = moved.map(({ samples }) => samples.map(rootMeanSquare));
  const ratios = lab.tasks.map((_, e) => largestOverSmallest(spreads.map((one) => at(one, e))));
  const numbers = {
    ...Object.fromEntries(lab.tasks.map((task, e) => [layerRatio(task), at(ratios, e)])),
    [mostUnlike]: Math.max(...spreads.map(largestOverSmallest)),
  };
  const figures = lab.tasks.map((task, e): Figure => ({
    name: `task-vector-${task}`,
    title: `Task vector of ${task}, layer by layer`,
    spec: violinsSpec({
      title: "",
      layers: moved.map(({ layer, samples }) => ({ layer, values: at(samples, e) })),
    }),
  }));
  return { rows: [], numbers, figures, tables: [spreadTable(lab, numbers, layers.length - moved.length)] };
}

export const figure3: Experiment = {
  id: "supermerge/figure-3",
  what: "task vectors by layer, as violins",
  minutes: [1, 2],
  models: 0,
  run: violins,
  claims: [
    claim(
      "Layers take part unequally: of those that moved, the most changed moves more than twice " +
        "as far as the least, in every expert",
      ({ numbers }) => Object.entries(numbers).every(([name, ratio]) => name === mostUnlike || ratio > 2),
    ),
    claim(
      "One layer is changed unlike by two tasks: somewhere, more than twice as far by one",
      ({ number }) => number(mostUnlike) > 2,
    ),
  ],
};
