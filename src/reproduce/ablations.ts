import { at } from "../at.js";
import { linesSpec } from "../report/lines.js";
import type { ResultRow } from "../report/rows.js";
import { averageAccuracy, bestOf, claim } from "./claims.js";
import { resultsTable, superMergeWith } from "./shared.js";
import type { Claim, Experiment, Figure, Lab } from "./types.js";

/** One setting of SuperMerge at several values, all others as they are. */
interface Ablation {
  readonly name: string;
  readonly what: string;
  readonly values: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly minutes: readonly [small: number, real: number];
  readonly claims?: readonly Claim[];
  /** What the values are numbers of, where they are: they are drawn as a curve then. */
  readonly axis?: string;
}

/** The number that a value's name begins with. */
function numberIn(name: string): number {
  const found = /[\d.]+/.exec(name);
  if (!found) throw new Error(`there is no number in "${name}"`);
  return Number(found[0]);
}

/** Accuracy on every task, and on average, value by value. */
function accuracyCurves(
  { name, values, axis }: Ablation,
  rows: readonly ResultRow[],
  { tasks }: Lab,
): Figure[] {
  if (axis === undefined) return [];
  const points = Object.keys(values).flatMap((one) => {
    const x = numberIn(one);
    const percent = (some: readonly string[]) => 100 * averageAccuracy(rows, one, some);
    return [
      ...tasks.map((task) => ({ x, y: percent([task]), series: task })),
      { x, y: percent(tasks), series: "average" },
    ];
  });
  return [
    {
      name,
      title: `Accuracy against ${axis}`,
      spec: linesSpec({ title: "", x: axis, y: "accuracy, %", zero: false, points }),
    },
  ];
}

function ablation(one: Ablation): Experiment {
  const { name, what, values, minutes, claims = [] } = one;
  const names = Object.keys(values);
  return {
    id: `ablation/${name}`,
    what,
    minutes,
    claims,
    async run(lab) {
      const candidates = Object.entries(values).map(([called, settings]) => superMergeWith(called, settings));
      const { rows } = await lab.compare(name, candidates);
      const ours = rows.filter(({ method }) => names.includes(method));
      const { synthetic, valPerTask } = lab;
      const isAblated = Object.values(values).some((settings) => "valPerTask" in settings);
      return {
        rows: ours,
        tables: [resultsTable("results", ours, isAblated ? { synthetic } : { synthetic, valPerTask })],
        figures: accuracyCurves(one, rows, lab),
      };
    },
  };
}

const exampleCounts = [8, 16, 32, 64, 128, 512];
const nExamples = (n: number): string => `${n} examples`;

export const ablationExperiments: readonly Experiment[] = [
  ablation({
    name: "gate",
    what: "which gate",
    values: {
      tanh: { gate: "tanh" },
      sigmoid: { gate: "sigmoid" },
      clamp: { gate: "clamp" },
      identity: { gate: "identity" },
    },
    minutes: [2, 9],
  }),
  ablation({
    name: "start",
    what: "where coefficients start",
    values: {
      "start 0.1": { init: 0.1 },
      "start 0.3": { init: 0.3 },
      "start 0.5": { init: 0.5 },
      "start 0.7": { init: 0.7 },
      "start of task arithmetic": { init: "search" },
    },
    minutes: [2, 12],
  }),
  ablation({
    name: "granularity",
    what: "one coefficient a tensor, a module, a block, a model",
    values: {
      tensor: { granularity: "tensor" },
      module: { granularity: "module" },
      block: { granularity: "block" },
      model: { granularity: "model" },
    },
    minutes: [2, 9],
  }),
  ablation({
    name: "examples",
    what: "how many validation examples a task",
    values: Object.fromEntries(exampleCounts.map((n) => [nExamples(n), { valPerTask: n }])),
    minutes: [3, 15],
    axis: "validation examples a task",
    claims: [
      claim(
        "The most examples give more than the fewest",
        ({ average }, { tasks }) => average(nExamples(512), tasks) > average(nExamples(8), tasks),
      ),
      claim("No step to more examples loses more than a point", ({ average }, { tasks }) => {
        const values = exampleCounts.map((n) => average(nExamples(n), tasks));
        return values.slice(1).every((value, i) => value >= at(values, i) - 0.01);
      }),
    ],
  }),
  ablation({
    name: "loss",
    what: "with labels or without",
    values: {
      "cross-entropy": { loss: "cross-entropy" },
      entropy: { loss: "entropy" },
      distillation: { loss: "distillation" },
    },
    minutes: [2, 8],
    claims: [
      bestOf("Labels are a better guide than entropy", "cross-entropy", ["entropy"]),
      bestOf("Without labels, what the experts say is a better guide than entropy", "distillation", [
        "entropy",
      ]),
    ],
  }),
  ablation({
    name: "steps",
    what: "how many steps",
    values: Object.fromEntries([10, 25, 50, 100, 200].map((n) => [`${n} steps`, { steps: n }])),
    minutes: [2, 11],
    axis: "steps",
  }),
];
