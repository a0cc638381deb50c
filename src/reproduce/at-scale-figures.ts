/** Tables and figures of merges of more and more experts. */
import { interval, mean, distinct, type Interval } from "../report/rows.js";
import { linesSpec } from "../report/lines.js";
import type { CaptionedTable, Figure, Lab, Produced } from "./types.js";

/** Tasks that were merged, or that had no part in it; and what a merge's accuracy on them is divided by. */
const taskGroups = {
  "held-in": { over: "the expert's", title: "Held-in, over the expert" },
  "held-out": { over: "the base's", title: "Held-out, over the base" },
} as const;
type TaskGroup = keyof typeof taskGroups;

/**
 * How a method did with k experts, on average over tasks, at a seed: over the experts themselves, or
 * over the base.
 */
export interface Point {
  readonly k: number;
  readonly seed: number;
  readonly method: string;
  readonly group: TaskGroup;
  readonly value: number;
}
/** Points of several series: a method's, or a family's. */
interface SeriesOfPoints {
  readonly called: "method" | "family";
  readonly series: Readonly<Record<string, readonly Point[]>>;
}

/** A series with k experts. */
interface Measured {
  readonly name: string;
  readonly k: number;
  readonly of: Interval;
}

/** Methods are no draws from anything: their mean at each seed, and the interval over the seeds. */
const overSeeds = (points: readonly Point[]): Interval =>
  interval(
    distinct(points.map(({ seed }) => seed)).map((seed) =>
      mean(points.filter((point) => point.seed === seed).map(({ value }) => value)),
    ),
  );

/** All series on a group of tasks, where there are some. */
const measured = ({ series }: SeriesOfPoints, group: TaskGroup, counts: readonly number[]): Measured[] =>
  Object.entries(series)
    .flatMap(([name, points]) =>
      counts.map((k) => ({
        name,
        k,
        of: overSeeds(points.filter((point) => point.group === group && point.k === k)),
      })),
    )
    .filter(({ of }) => of.count > 0);

function cellOf({ mean: middle, half, count }: Interval): string {
  const width = count > 1 ? ` ± ${half.toFixed(3)}` : "";
  return `${middle.toFixed(3)}${width}`;
}

function groupTable(
  { called, series }: SeriesOfPoints,
  group: TaskGroup,
  found: readonly Measured[],
  { seeds, counts }: { readonly seeds: readonly number[]; readonly counts: readonly number[] },
): CaptionedTable {
  const { over } = taskGroups[group];
  const methods = called === "family" ? ", methods" : "";
  const intervals = seeds.length > 1 ? ", ± 95 % intervals over the seeds" : "";
  const cells = new Map(found.map(({ name, k, of }) => [`${name}\n${k}`, cellOf(of)]));
  return {
    name: group,
    caption:
      `${group} accuracy over ${over}, mean over tasks${methods} and seeds ` +
      `${seeds.join(", ")}${intervals}`,
    table: {
      head: [called, ...counts.map((k) => `${k} experts`)],
      body: Object.keys(series).map((name) => [
        name,
        ...counts.map((k) => cells.get(`${name}\n${k}`) ?? "–"),
      ]),
    },
  };
}

const groupFigure = (group: TaskGroup, found: readonly Measured[]): Figure => ({
  name: group,
  title: `${taskGroups[group].title}, against the number of experts`,
  spec: linesSpec({
    title: "",
    x: "experts",
    y: "relative accuracy",
    zero: false,
    points: found.map(({ name, k, of }) => ({
      x: k,
      y: of.mean,
      low: of.mean - of.half,
      high: of.mean + of.half,
      series: name,
    })),
  }),
});

/** A table and a figure of each group of tasks, and every number by name. */
export function tablesAndFigures(
  all: SeriesOfPoints,
  { seeds }: Lab,
): Required<Pick<Produced, "tables" | "figures" | "numbers">> {
  const counts = distinct(Object.values(all.series).flatMap((points) => points.map(({ k }) => k))).sort(
    (a, b) => a - b,
  );
  const numbers: Record<string, number> = {};
  const tables: CaptionedTable[] = [];
  const figures: Figure[] = [];
  for (const group of ["held-in", "held-out"] as const) {
    const found = measured(all, group, counts);
    for (const { name, k, of } of found) numbers[`${group}, ${name}, ${k} experts`] = of.mean;
    tables.push(groupTable(all, group, found, { seeds, counts }));
    figures.push(groupFigure(group, found));
  }
  return { numbers, tables, figures };
}
