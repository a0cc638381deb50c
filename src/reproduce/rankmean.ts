import { mean } from "../report/interval.js";
import { linesSpec } from "../report/lines.js";
import { distinct } from "../report/rows.js";
import { average, everyPair, given } from "./shared.js";
import type { Experiment, Lab, Produced } from "./types.js";

const variants = {
  rankmean: {},
  "rankmean, finer-grained": { module: "linear" },
  "rankmean, reversed": { weigh: "reversed" },
} as const;
const candidates = [
  "average",
  ...Object.entries(variants).map(([name, values]) => given(name, "rankmean", values)),
];

const apart = "largest over smallest part of an expert's own mean, of one module";

/** What a tensor's name says of its module; the first that fits. */
const moduleKinds = [
  { kind: "attention", pattern: /att|SelfAttention|[qkvo]_proj|c_attn/i },
  { kind: "feed-forward", pattern: /inter|mlp|output\.dense|DenseReluDense|fc\d|c_fc|c_proj/i },
] as const;

/** Figure 1: how far each module moved. */
async function magnitudes(lab: Lab): Promise<Produced> {
  const sums = new Map<string, { sum: number; count: number }>();
  for await (const { name, deltas } of lab.look()) {
    const block = /\.(\d+)\./.exec(name)?.[1];
    const kind = moduleKinds.find(({ pattern }) => pattern.test(name))?.kind;
    if (block === undefined || kind === undefined || !name.endsWith("weight")) continue;
    for (const [e, delta] of deltas.entries()) {
      const key = `${lab.tasks[e]!}\n${kind}\n${block}`;
      const entry = sums.get(key) ?? { sum: 0, count: 0 };
      let sum = 0;
      for (const value of delta) sum += Math.abs(value);
      sums.set(key, { sum: entry.sum + sum, count: entry.count + delta.length });
    }
  }
  const points = [...sums].map(([key, { sum, count }]) => {
    const [expert, kind, block] = key.split("\n") as [string, string, string];
    return { expert, kind, x: Number(block), y: sum / count, series: expert };
  });
  const kinds = [...new Set(points.map(({ kind }) => kind))];
  const means = Object.fromEntries(
    lab.tasks.map((task) => [task, mean(points.filter(({ expert }) => expert === task).map(({ y }) => y))]),
  );
  // A module's updates over the expert's own mean: how far experts differ in that, whatever they moved in all.
  const modules = kinds
    .flatMap((kind) =>
      distinct(points.map(({ x }) => x)).map((x) =>
        points
          .filter((point) => point.kind === kind && point.x === x)
          .map(({ y, expert }) => y / means[expert]!),
      ),
    )
    .filter(({ length }) => length > 0);
  return {
    rows: [],
    tables: [],
    numbers: {
      ...Object.fromEntries(lab.tasks.map((task) => [`mean |update|, ${task}`, means[task]!])),
      [apart]: Math.max(...modules.map((shares) => Math.max(...shares) / Math.min(...shares))),
    },
    figures: kinds.map((kind) => ({
      name: `magnitudes-${kind}`,
      title: `Average magnitude of updates, ${kind}, by block`,
      spec: linesSpec({
        title: "",
        x: "block",
        y: "mean of absolute updates",
        points: points.filter((point) => point.kind === kind),
      }),
    })),
  };
}

export const rankmean: readonly Experiment[] = [
  {
    id: "rankmean/pairs",
    what: "pairs merged by RankMean, finer-grained and reversed, beside the plain average",
    minutes: [1, 4],
    run: (lab) => everyPair(lab, candidates),
    claims: [
      {
        text: "RankMean's average over all pairs is above the plain average's",
        holds: ({ rows }) => average(rows, "rankmean")! > average(rows, "average")!,
      },
      {
        text: "RankMean, reversed, is worse",
        holds: ({ rows }) => average(rows, "rankmean, reversed")! < average(rows, "rankmean")!,
      },
      {
        text: "RankMean, finer-grained, is within two points of it",
        holds: ({ rows }) =>
          Math.abs(average(rows, "rankmean, finer-grained")! - average(rows, "rankmean")!) <= 0.02,
      },
    ],
  },
  {
    id: "rankmean/magnitudes",
    what: "average magnitude of updates by module",
    minutes: [1, 2],
    models: 0,
    run: magnitudes,
    claims: [
      {
        text:
          "Experts spread their updates unlike over the modules: in some module, one expert's mean " +
          "update over its own average is more than a tenth above another's",
        holds: ({ numbers }) => numbers![apart]! > 1.1,
      },
      {
        text: "Experts move by different amounts: the one that moved most by more than a tenth more than the least",
        holds: ({ numbers }) => {
          const means = Object.entries(numbers!).flatMap(([name, value]) => (name === apart ? [] : [value]));
          return Math.max(...means) > 1.1 * Math.min(...means);
        },
      },
    ],
  },
];
