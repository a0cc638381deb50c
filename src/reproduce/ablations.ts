import { linesSpec } from "../report/lines.js";
import { testScore } from "../report/rows.js";
import { average, tableOf, trained } from "./shared.js";
import type { Claim, Experiment } from "./types.js";

/** One setting of SuperMerge at several values, all others as they are. */
const ablation = (
  name: string,
  what: string,
  values: Readonly<Record<string, Readonly<Record<string, unknown>>>>,
  minutes: readonly [number, number],
  { claims = [], axis }: { claims?: readonly Claim[]; axis?: string } = {},
): Experiment => ({
  id: `ablation/${name}`,
  what,
  minutes,
  claims,
  async run(lab) {
    const names = Object.keys(values);
    const { rows } = await lab.compare(
      name,
      names.map((one) => trained(one, values[one]!)),
    );
    const points =
      axis === undefined
        ? []
        : names.flatMap((one) => [
            ...lab.tasks.map((task) => ({
              x: Number(/[\d.]+/.exec(one)![0]),
              y: 100 * testScore(rows, one, task)!.mean,
              series: task,
            })),
            { x: Number(/[\d.]+/.exec(one)![0]), y: 100 * average(rows, one, lab.tasks)!, series: "average" },
          ]);
    const ours = rows.filter(({ method }) => names.includes(method));
    const { synthetic, valPerTask } = lab;
    const differ = Object.values(values).some((one) => "valPerTask" in one);
    return {
      rows: ours,
      tables: [tableOf("results", ours, { synthetic, valPerTask: differ ? undefined : valPerTask })],
      figures:
        axis === undefined
          ? []
          : [
              {
                name,
                title: `Accuracy against ${axis}`,
                spec: linesSpec({ title: "", x: axis, y: "accuracy, %", zero: false, points }),
              },
            ],
    };
  },
});

const counts = [8, 16, 32, 64, 128, 512];

export const ablations: readonly Experiment[] = [
  ablation(
    "gate",
    "which gate",
    {
      tanh: { gate: "tanh" },
      sigmoid: { gate: "sigmoid" },
      clamp: { gate: "clamp" },
      identity: { gate: "identity" },
    },
    [2, 9],
  ),
  ablation(
    "start",
    "where coefficients start",
    {
      "start 0.1": { init: 0.1 },
      "start 0.3": { init: 0.3 },
      "start 0.5": { init: 0.5 },
      "start 0.7": { init: 0.7 },
      "start of task arithmetic": { init: "search" },
    },
    [2, 12],
  ),
  ablation(
    "granularity",
    "one coefficient a tensor, a module, a block, a model",
    {
      tensor: { granularity: "tensor" },
      module: { granularity: "module" },
      block: { granularity: "block" },
      model: { granularity: "model" },
    },
    [2, 9],
  ),
  ablation(
    "examples",
    "how many validation examples a task",
    Object.fromEntries(counts.map((n) => [`${n} examples`, { valPerTask: n }])),
    [3, 15],
    {
      axis: "validation examples a task",
      claims: [
        {
          text: "The most examples give more than the fewest",
          holds: ({ rows }, { tasks }) =>
            average(rows, "512 examples", tasks)! > average(rows, "8 examples", tasks)!,
        },
        {
          text: "No step to more examples loses more than a point",
          holds: ({ rows }, { tasks }) => {
            const values = counts.map((n) => average(rows, `${n} examples`, tasks)!);
            return values.every((value, i) => i === 0 || value >= values[i - 1]! - 0.01);
          },
        },
      ],
    },
  ),
  ablation(
    "loss",
    "with labels or without",
    {
      "cross-entropy": { loss: "cross-entropy" },
      entropy: { loss: "entropy" },
      distillation: { loss: "distillation" },
    },
    [2, 8],
    {
      claims: [
        {
          text: "Labels are a better guide than entropy",
          holds: ({ rows }, { tasks }) =>
            average(rows, "cross-entropy", tasks)! > average(rows, "entropy", tasks)!,
        },
        {
          text: "Without labels, what the experts say is a better guide than entropy",
          holds: ({ rows }, { tasks }) =>
            average(rows, "distillation", tasks)! > average(rows, "entropy", tasks)!,
        },
      ],
    },
  ),
  ablation(
    "steps",
    "how many steps",
    Object.fromEntries([10, 25, 50, 100, 200].map((n) => [`${n} steps`, { steps: n }])),
    [2, 11],
    { axis: "steps" },
  ),
];
