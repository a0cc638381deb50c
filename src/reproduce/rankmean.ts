import { at, lookUp } from "../at.js";
import { mean, distinct } from "../report/rows.js";
import { linesSpec } from "../report/lines.js";
import { claim } from "./claims.js";
import { everyPair, given } from "./shared.js";
import type { Experiment, Lab, Produced } from "./types.js";

const rankmeanCandidates = [
  "average",
  // DARE as the paper has it beside: nine tenths dropped, then averaged.
  given("dare, averaged", "dare", { dareP: 0.9, lambda: 0.5 }),
  given("rankmean", "rankmean", {}),
  given("rankmean, finer-grained", "rankmean", { module: "linear" }),
  // What the authors print and ran; under it the most changed still weighs most.
  given("rankmean, reversed", "rankmean", { weigh: "printed" }),
  given("rankmean, the least changed most", "rankmean", { weigh: "reversed" }),
];

const apart = "largest over smallest part of an expert's own mean, of one module";

/** What a tensor's name says of its module; the first that fits. */
const moduleKinds = [
  { kind: "attention", pattern: /att|SelfAttention|[qkvo]_proj|c_attn/i },
  { kind: "feed-forward", pattern: /inter|mlp|output\.dense|DenseReluDense|fc\d|c_fc|c_proj/i },
] as const;

/** How far an expert's weights of a kind moved in a block: their absolute changes, summed, and how many they are. */
interface ModuleChange {
  readonly expert: string;
  readonly kind: string;
  readonly block: number;
  sum: number;
  count: number;
}

/** The kind and the block of a weight matrix; undefined where it is in none. */
function blockModule(name: string): { kind: string; block: number } | undefined {
  const block = /\.(\d+)\./.exec(name)?.[1];
  const kind = moduleKinds.find(({ pattern }) => pattern.test(name))?.kind;
  if (block === undefined || kind === undefined || !name.endsWith("weight")) return undefined;
  return { kind, block: Number(block) };
}

async function moduleChanges(lab: Lab): Promise<ModuleChange[]> {
  const found = new Map<string, ModuleChange>();
  for await (const { name, deltas } of lab.tensors()) {
    const module = blockModule(name);
    if (!module) continue;
    for (const [e, delta] of deltas.entries()) {
      const expert = at(lab.tasks, e);
      const key = `${expert}\n${module.kind}\n${module.block}`;
      const change = found.get(key) ?? { expert, ...module, sum: 0, count: 0 };
      let sum = 0;
      for (const value of delta) sum += Math.abs(value);
      change.sum += sum;
      change.count += delta.length;
      found.set(key, change);
    }
  }
  return [...found.values()];
}

/** Figure 1: how far each module moved. */
async function magnitudes(lab: Lab): Promise<Produced> {
  const points = (await moduleChanges(lab)).map(({ expert, kind, block, sum, count }) => ({
    expert,
    kind,
    x: block,
    y: sum / count,
    series: expert,
  }));
  const kinds = distinct(points.map(({ kind }) => kind));
  const means = new Map(
    lab.tasks.map((task) => [task, mean(points.filter(({ expert }) => expert === task).map(({ y }) => y))]),
  );
  // A module's updates over the expert's own mean: how far experts differ in that, whatever they moved in all.
  const shares = new Map<string, number[]>();
  for (const { expert, kind, x, y } of points) {
    const key = `${kind}\n${x}`;
    shares.set(key, [...(shares.get(key) ?? []), y / lookUp(means, expert)]);
  }
  const ratios = [...shares.values()].map((one) => Math.max(...one) / Math.min(...one));
  return {
    rows: [],
    tables: [],
    numbers: {
      ...Object.fromEntries([...means].map(([task, value]) => [`mean |update|, ${task}`, value])),
      [apart]: Math.max(...ratios),
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

export const rankmeanExperiments: readonly Experiment[] = [
  {
    id: "rankmean/pairs",
    what: "pairs merged by RankMean, finer-grained and reversed, beside the plain average and DARE",
    minutes: [1, 4],
    run: (lab) => everyPair(lab, rankmeanCandidates),
    claims: [
      claim(
        "RankMean's average over all pairs is above the plain average's",
        ({ average }) => average("rankmean") > average("average"),
      ),
      claim(
        "RankMean, reversed, is worse",
        ({ average }) => average("rankmean, reversed") < average("rankmean"),
      ),
      claim(
        "RankMean, finer-grained, is within two points of it",
        ({ average }) => Math.abs(average("rankmean, finer-grained") - average("rankmean")) <= 0.02,
      ),
    ],
  },
  {
    id: "rankmean/magnitudes",
    what: "average magnitude of updates by module",
    minutes: [1, 2],
    models: 0,
    run: magnitudes,
    claims: [
      claim(
        "Experts spread their updates unlike over the modules: in some module, one expert's mean " +
          "update over its own average is more than a tenth above another's",
        ({ number }) => number(apart) > 1.1,
      ),
      claim(
        "Experts move by different amounts: the one that moved most by more than a tenth more than the least",
        ({ numbersOf }) => {
          const means = numbersOf("mean |update|");
          return Math.max(...means) > 1.1 * Math.min(...means);
        },
      ),
    ],
  },
];
