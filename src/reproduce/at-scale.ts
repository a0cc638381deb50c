import { interval, mean } from "../report/interval.js";
import { linesSpec } from "../report/lines.js";
import { distinct, testScore, type ResultRow } from "../report/rows.js";
import { shuffled } from "../tasks/split.js";
import { given, pretrained } from "./shared.js";
import type { Experiment, Figure, Lab, Produced, Shown } from "./types.js";

const methods = ["average", "task-arithmetic", "ties", "dare-ties"];
const candidates = [
  pretrained,
  ...methods.map((name) => (name === "dare-ties" ? given(name, "ties", { dareP: 0.9 }) : name)),
];
const places = ["held-in", "held-out"] as const;
type Where = (typeof places)[number];

/**
 * How a method did with k experts, on average over tasks, at a seed: over the experts themselves, or
 * over the base.
 */
interface Point {
  readonly k: number;
  readonly seed: number;
  readonly method: string;
  readonly where: Where;
  readonly value: number;
}
interface Grown {
  readonly points: readonly Point[];
  readonly rows: readonly ResultRow[];
}

/** A method's scores over another's, task by task, on average. */
function relative(
  rows: readonly ResultRow[],
  method: string,
  reference: string,
  tasks: readonly string[],
): number {
  return mean(
    tasks.map((task) => testScore(rows, method, task)!.mean / testScore(rows, reference, task)!.mean),
  );
}

/** Merges more and more of a family's experts, drawn by the seed; the tasks that are left are held out. */
async function grown(lab: Lab): Promise<Grown> {
  const all = [...lab.tasks, ...lab.heldOut];
  const points: Point[] = [];
  const rows: ResultRow[] = [];
  for (const seed of lab.seeds) {
    for (const k of [2, 3, 4, 6, 8].filter((count) => count <= all.length)) {
      const order = shuffled(all, `${seed}/experts`);
      const [tasks, heldOut] = [order.slice(0, k), order.slice(k)];
      const made = await lab.compare(`k${k}-seed${seed}`, candidates, { tasks, heldOut, seeds: [seed] });
      rows.push(
        ...made.rows
          .filter(({ method, task }) => method !== "pretrained" || heldOut.includes(task))
          .map((row) => ({ ...row, method: `${row.method}, ${k} experts` })),
      );
      for (const method of methods) {
        points.push({
          k,
          seed,
          method,
          where: "held-in",
          value: relative(made.rows, method, "individual", tasks),
        });
        if (heldOut.length)
          points.push({
            k,
            seed,
            method,
            where: "held-out",
            value: relative(made.rows, method, "pretrained", heldOut),
          });
      }
    }
  }
  return { points, rows };
}

/**
 * Points of several series (a method's, a family's): a table and a figure of each place, and every
 * number by name.
 */
function shown(
  series: Readonly<Record<string, readonly Point[]>>,
  called: string,
  lab: Lab,
): Pick<Produced, "tables" | "figures" | "numbers"> {
  const names = Object.keys(series);
  const counts = [...new Set(Object.values(series).flatMap((points) => points.map(({ k }) => k)))].sort(
    (a, b) => a - b,
  );
  // Methods are no draws from anything: their mean at each seed, and the interval over the seeds.
  const over = (name: string, where: Where, k: number) => {
    const here = series[name]!.filter((point) => point.where === where && point.k === k);
    return interval(
      distinct(here.map(({ seed }) => seed)).map((seed) =>
        mean(here.filter((point) => point.seed === seed).map(({ value }) => value)),
      ),
    );
  };
  const numbers: Record<string, number> = {};
  const tables: Shown[] = [];
  const figures: Figure[] = [];
  for (const where of places) {
    const known = names
      .flatMap((name) => counts.map((k) => ({ name, k, of: over(name, where, k) })))
      .filter(({ of }) => of.count > 0);
    for (const { name, k, of } of known) numbers[`${where}, ${name}, ${k} experts`] = of.mean;
    const cell = (name: string, k: number) => {
      const of = known.find((one) => one.name === name && one.k === k)?.of;
      return of ? `${of.mean.toFixed(3)}${of.count > 1 ? ` ± ${of.half.toFixed(3)}` : ""}` : "–";
    };
    tables.push({
      name: where,
      caption:
        `${where} accuracy over ${where === "held-in" ? "the expert's" : "the base's"}, mean ` +
        `over tasks${called === "family" ? ", methods" : ""} and seeds ` +
        `${lab.seeds.join(", ")}${lab.seeds.length > 1 ? ", ± 95 % intervals over the seeds" : ""}` +
        (where === "held-out" ? "; with more experts, fewer tasks are left" : ""),
      table: {
        head: [called, ...counts.map((k) => `${k} experts`)],
        body: names.map((name) => [name, ...counts.map((k) => cell(name, k))]),
      },
    });
    figures.push({
      name: where,
      title:
        `${where === "held-in" ? "Held-in, over the expert" : "Held-out, over the base"}, ` +
        "against the number of experts",
      spec: linesSpec({
        title: "",
        x: "experts",
        y: "relative accuracy",
        zero: false,
        points: known.map(({ name, k, of }) => ({
          x: k,
          y: of.mean,
          low: of.mean - of.half,
          high: of.mean + of.half,
          series: name,
        })),
      }),
    });
  }
  return { numbers, tables, figures };
}

/** Figures 1, 2, 5 and 6, on one family: a series a method. */
async function experts(lab: Lab): Promise<Produced> {
  const { points, rows } = await grown(lab);
  return {
    rows,
    ...shown(
      Object.fromEntries(
        methods.map((method) => [method, points.filter((point) => point.method === method)]),
      ),
      "method",
      lab,
    ),
  };
}

const spread = (of: (method: string) => number): number =>
  Math.max(...methods.map(of)) - Math.min(...methods.map(of));

/** Figures 3, 4 and 7: a series a family, over all methods. */
async function bases(lab: Lab): Promise<Produced> {
  const found: [string, Grown][] = [];
  for (const one of lab.families) found.push([one.name, await grown(one)]);
  const most = Math.max(...found[0]![1].points.map(({ k }) => k));
  const at = (points: readonly Point[], method: string) =>
    mean(
      points
        .filter((point) => point.where === "held-in" && point.k === most && point.method === method)
        .map(({ value }) => value),
    );
  const { numbers, ...rest } = shown(
    Object.fromEntries(found.map(([name, { points }]) => [name, points])),
    "family",
    lab,
  );
  const perMethod: Shown = {
    name: "methods",
    caption: `held-in accuracy over the expert's with ${most} experts`,
    table: {
      head: ["family", ...methods, "largest difference"],
      body: found.map(([name, { points }]) => [
        name,
        ...methods.map((method) => at(points, method).toFixed(3)),
        spread((method) => at(points, method)).toFixed(3),
      ]),
    },
  };
  return {
    ...rest,
    tables: [...rest.tables, perMethod],
    rows: found.flatMap(([name, { rows }]) =>
      rows.map((row) => ({ ...row, method: `${row.method} (${name})` })),
    ),
    numbers: {
      ...numbers,
      ...Object.fromEntries(
        found.map(([name, { points }]) => [
          `largest difference of methods, ${name}`,
          spread((method) => at(points, method)),
        ]),
      ),
    },
  };
}

/** Held-in accuracy of family number i, on average over the numbers of experts. */
const heldIn = ({ numbers }: Produced, { families }: Lab, i: number): number =>
  mean(
    Object.entries(numbers!)
      .filter(([key]) => key.startsWith(`held-in, ${families[i]!.name},`))
      .map(([, value]) => value),
  );
const sizes = ({ families }: Lab): number[] =>
  families.flatMap((_, i) => (i % 2 === 0 && i + 1 < families.length ? [i] : []));

export const atScale: readonly Experiment[] = [
  {
    id: "at-scale/experts",
    what: "methods × number of experts × seeds: held-in over the expert, held-out over the base",
    minutes: [2, 15],
    heldOut: true,
    run: experts,
    claims: [
      {
        text: "The most experts have less held-in accuracy than the fewest, for every method",
        holds: ({ numbers }) =>
          methods.every((method) => {
            const values = Object.entries(numbers!)
              .filter(([key]) => key.startsWith(`held-in, ${method},`))
              .map(([, value]) => value);
            return values.at(-1)! < values[0]!;
          }),
      },
      {
        text: "Merged experts are better than the base on tasks that none of them saw, in most cases",
        holds: ({ numbers }) => {
          const values = Object.entries(numbers!)
            .filter(([key]) => key.startsWith("held-out"))
            .map(([, value]) => value);
          return values.length ? values.filter((value) => value > 1).length > values.length / 2 : undefined;
        },
      },
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
    run: bases,
    claims: [
      {
        text:
          "Experts of the strong base merge better than those of the weak one, at every size, on " +
          "average over the numbers of experts and methods",
        holds: (found, lab) => sizes(lab).every((i) => heldIn(found, lab, i + 1) > heldIn(found, lab, i)),
      },
      {
        text: "Larger models merge better, weak or strong, on average over the numbers of experts and methods",
        holds: (found, lab) =>
          lab.families.length < 4
            ? undefined
            : lab.families.slice(2).every((_, i) => heldIn(found, lab, i + 2) > heldIn(found, lab, i)),
      },
      {
        text:
          "Held-in with the most experts, methods differ less on the largest, strong base than on " +
          "the smallest, weak one",
        holds: ({ numbers }, { families }) =>
          numbers![`largest difference of methods, ${families.at(-1)!.name}`]! <
          numbers![`largest difference of methods, ${families[0]!.name}`]!,
      },
    ],
  },
];
