import { at } from "../at.js";
import { mean, type ResultRow } from "../report/rows.js";
import { shuffled } from "../tasks/split.js";
import { tablesAndFigures, type Point } from "./at-scale-figures.js";
import { averageAccuracy, claim, type Findings } from "./claims.js";
import { given, pretrained } from "./shared.js";
import type { CaptionedTable, Experiment, Lab, Produced } from "./types.js";

const mergeMethods = ["average", "task-arithmetic", "ties", "dare-ties"];
const scaleCandidates = [
  pretrained,
  "average",
  "task-arithmetic",
  "ties",
  given("dare-ties", "ties", { dareP: 0.9 }),
];

interface Growth {
  readonly points: readonly Point[];
  readonly rows: readonly ResultRow[];
}

/** A method's scores over another's, task by task, on average. */
const relativeScore = (
  rows: readonly ResultRow[],
  method: string,
  reference: string,
  tasks: readonly string[],
): number =>
  mean(tasks.map((task) => averageAccuracy(rows, method, [task]) / averageAccuracy(rows, reference, [task])));

/** Merges k experts, drawn by the seed. What is held out is never merged, and the same for every k, as in the paper. */
async function mergeSome(lab: Lab, k: number, seed: number): Promise<Growth> {
  const tasks = shuffled(lab.tasks, `${seed}/experts`).slice(0, k);
  const { heldOut } = lab;
  const { rows } = await lab.compare(`k${k}-seed${seed}`, scaleCandidates, { tasks, heldOut, seeds: [seed] });
  const points = mergeMethods.flatMap((method): Point[] => {
    const point = { k, seed, method };
    const inside: Point = {
      ...point,
      group: "held-in",
      value: relativeScore(rows, method, "individual", tasks),
    };
    if (heldOut.length === 0) return [inside];
    const value = relativeScore(rows, method, "pretrained", heldOut);
    return [inside, { ...point, group: "held-out", value }];
  });
  return {
    points,
    rows: rows
      .filter(({ method, task }) => method !== "pretrained" || heldOut.includes(task))
      .map((row) => ({ ...row, method: `${row.method}, ${k} experts` })),
  };
}

/** Merges more and more of a family's experts, at every seed. */
async function mergeMoreAndMore(lab: Lab): Promise<Growth> {
  const most = lab.tasks.length;
  const points: Point[] = [];
  const rows: ResultRow[] = [];
  for (const seed of lab.seeds) {
    for (const k of [2, 3, 4, 6, 8].filter((count) => count <= most)) {
      const found = await mergeSome(lab, k, seed);
      points.push(...found.points);
      rows.push(...found.rows);
    }
  }
  return { points, rows };
}

/** Figures 1, 2, 5 and 6, on one family: a series a method. */
async function expertsOfOne(lab: Lab): Promise<Produced> {
  const { points, rows } = await mergeMoreAndMore(lab);
  const series = Object.fromEntries(
    mergeMethods.map((method) => [method, points.filter((point) => point.method === method)]),
  );
  return { rows, ...tablesAndFigures({ called: "method", series }, lab) };
}

/** Held-in accuracy of each method with the most experts. */
const withMost = (points: readonly Point[], most: number): number[] =>
  mergeMethods.map((method) =>
    mean(
      points
        .filter((point) => point.group === "held-in" && point.k === most && point.method === method)
        .map(({ value }) => value),
    ),
  );
const largestDifference = (values: readonly number[]): number => Math.max(...values) - Math.min(...values);
const differenceName = (family: string): string => `largest difference of methods, ${family}`;

/** Figures 3, 4 and 7: a series a family, over all methods. */
async function basesCompared(lab: Lab): Promise<Produced> {
  const found: { name: string; points: readonly Point[]; rows: readonly ResultRow[] }[] = [];
  for (const one of lab.families) found.push({ name: one.name, ...(await mergeMoreAndMore(one)) });
  const most = Math.max(...at(found, 0).points.map(({ k }) => k));
  const series = Object.fromEntries(found.map(({ name, points }) => [name, points]));
  const { numbers, tables, figures } = tablesAndFigures({ called: "family", series }, lab);
  const accuracies = found.map(({ name, points }) => ({ name, values: withMost(points, most) }));
  const perMethod: CaptionedTable = {
    name: "methods",
    caption: `held-in accuracy over the expert's with ${most} experts`,
    table: {
      head: ["family", ...mergeMethods, "largest difference"],
      body: accuracies.map(({ name, values }) => [
        name,
        ...values.map((value) => value.toFixed(3)),
        largestDifference(values).toFixed(3),
      ]),
    },
  };
  return {
    figures,
    tables: [...tables, perMethod],
    rows: found.flatMap(({ name, rows }) =>
      rows.map((row) => ({ ...row, method: `${row.method} (${name})` })),
    ),
    numbers: {
      ...numbers,
      ...Object.fromEntries(
        accuracies.map(({ name, values }) => [differenceName(name), largestDifference(values)]),
      ),
    },
  };
}

/** Held-in accuracy of family number i, on average over the numbers of experts. */
const heldIn = ({ numbersOf }: Findings, { families }: Lab, i: number): number =>
  mean(numbersOf(`held-in, ${at(families, i).name},`));

/** That family number `better` has more held-in accuracy than family number `worse`, for all of some pairs. */
const isAbove = (
  found: Findings,
  lab: Lab,
  pairs: readonly { readonly better: number; readonly worse: number }[],
): boolean => pairs.every(({ better, worse }) => heldIn(found, lab, better) > heldIn(found, lab, worse));

export const atScaleExperiments: readonly Experiment[] = [
  {
    id: "at-scale/experts",
    what: "methods × number of experts × seeds: held-in over the expert, held-out over the base",
    minutes: [2, 15],
    heldOut: true,
    run: expertsOfOne,
    claims: [
      claim(
        "The most experts have less held-in accuracy than the fewest, for every method",
        ({ numbersOf }) =>
          mergeMethods.every((method) => {
            const values = numbersOf(`held-in, ${method},`);
            return at(values, -1) < at(values, 0);
          }),
      ),
      claim(
        "Merged experts are better than the base on tasks that none of them saw, in most cases",
        ({ numbersOf }) => {
          const values = numbersOf("held-out");
          return values.filter((value) => value > 1).length > values.length / 2;
        },
      ),
    ],
  },
  {
    id: "at-scale/bases",
    what:
      "the same on a weak and a strong base of each size: --families " +
      "SMALL-WEAK,SMALL-STRONG,LARGE-WEAK,LARGE-STRONG",
    minutes: [8, 25],
    heldOut: true,
    families: 2,
    run: basesCompared,
    claims: [
      claim(
        "Experts of the strong base merge better than those of the weak one, at every size, on " +
          "average over the numbers of experts and methods",
        (found, lab) => {
          const sizes = Math.floor(lab.families.length / 2);
          const pairs = Array.from({ length: sizes }, (_, i) => ({ better: 2 * i + 1, worse: 2 * i }));
          return isAbove(found, lab, pairs);
        },
      ),
      claim(
        "Larger models merge better, weak or strong, on average over the numbers of experts and methods",
        (found, lab) => {
          if (lab.families.length < 4) return undefined;
          const pairs = lab.families.slice(2).map((_, i) => ({ better: i + 2, worse: i }));
          return isAbove(found, lab, pairs);
        },
      ),
      claim(
        "Held-in with the most experts, methods differ less on the largest, strong base than on " +
          "the smallest, weak one",
        ({ number }, { families }) =>
          number(differenceName(at(families, -1).name)) < number(differenceName(at(families, 0).name)),
      ),
    ],
  },
];
