import { at, f32, f64 } from "../at.js";
import { linesSpec } from "../report/lines.js";
import type { ResultRow } from "../report/rows.js";
import { averageAccuracy, claim, type Findings } from "./claims.js";
import type { Candidate } from "../compare/candidates.js";
import type { Method } from "../methods/types.js";
import { behindDare, dareRates, everyPair, given, rateOf, resultsTable, unitLambdas } from "./shared.js";
import type { Claim, Experiment, Lab, Produced } from "./types.js";

const dropRates = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99];
const droppers = {
  dare: { method: "dare", parameter: "dareP", values: { rescale: "inverse" } },
  "drop only": { method: "dare", parameter: "dareP", values: { rescale: "none" } },
  "magnitude pruning": { method: "magnitude-pruning", parameter: "p", values: {} },
} as const;
type Dropper = keyof typeof droppers;
const rowName = (name: string, rate: number) => `${name}, p ${rate}`;

/** Figures 3, 4, 8 and 9: one fine-tuned model whose task vector loses more and more of its entries. */
async function droppedEntries(lab: Lab): Promise<Produced> {
  const candidates = Object.entries(droppers).flatMap(([name, { method, parameter, values }]) =>
    dropRates.map((rate) => given(rowName(name, rate), method, { ...values, [parameter]: rate, lambda: 1 })),
  );
  const rows: ResultRow[] = [];
  // Every expert alone: what is dropped is its own.
  for (const task of lab.tasks)
    rows.push(...(await lab.compare(`drop-${task}`, candidates, { tasks: [task] })).rows);
  const points = Object.keys(droppers).flatMap((name) =>
    dropRates.map((rate) => ({
      x: rate,
      y: 100 * averageAccuracy(rows, rowName(name, rate), lab.tasks),
      series: name,
    })),
  );
  return {
    rows,
    tables: [resultsTable("results", rows, lab, "each expert alone, part p of its task vector dropped")],
    figures: [
      {
        name: "drop-rates",
        title: "Average accuracy of the experts against the part of their task vectors that is dropped",
        spec: linesSpec({
          title: "",
          x: "drop rate p",
          y: "average accuracy, %",
          spacing: "linear",
          zero: false,
          points,
        }),
      },
    ],
  };
}

/** Absolute entries of every expert's task vector. */
interface EntrySample {
  /** One entry in so many, evenly. */
  readonly step: number;
  readonly byExpert: readonly (readonly number[])[];
}

/** A million entries of each task vector, or all where it has fewer. */
async function sampleEntries(lab: Lab): Promise<EntrySample> {
  const most = 1_000_000;
  let total = 0;
  for await (const { base } of lab.tensors()) total += base.length;
  const step = Math.max(1, Math.floor(total / most));
  const byExpert: number[][] = lab.tasks.map(() => []);
  let before = 0;
  for await (const { base, deltas } of lab.tensors()) {
    const first = (step - (before % step)) % step;
    for (const [e, delta] of deltas.entries()) {
      const sample = at(byExpert, e);
      for (let i = first; i < delta.length; i += step) sample.push(Math.abs(f32(delta, i)));
    }
    before += base.length;
  }
  return { step, byExpert };
}

const deciles = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
const wholePercent = (part: number) => `${Math.round(100 * part)} %`;

/** How large the entries of an expert's task vector are. */
interface EntrySizes {
  readonly task: string;
  /** Part of the entries that is exactly 0: embeddings that were frozen, and rows that no example looked up. */
  readonly unmoved: number;
  /** Of the others, by decile: so many are at most as large. */
  readonly atMost: readonly { readonly part: number; readonly size: number }[];
}

function sizesOf(task: string, values: readonly number[]): EntrySizes {
  const moved = Float64Array.from(values.filter((value) => value !== 0)).sort();
  return {
    task,
    unmoved: (values.length - moved.length) / values.length,
    atMost: deciles.map((part) => ({
      part,
      size: f64(moved, Math.min(moved.length - 1, Math.ceil(part * moved.length) - 1)),
    })),
  };
}

const medianName = (task: string): string => `median of |entry| that moved, ${task}`;

/** Figure 10: how large the entries of task vectors are. */
async function entrySizes(lab: Lab): Promise<Produced> {
  const { step, byExpert } = await sampleEntries(lab);
  const found = lab.tasks.map((task, e) => sizesOf(task, at(byExpert, e)));
  const looked = step === 1 ? "every entry" : `one entry in ${step}`;
  return {
    rows: [],
    numbers: Object.fromEntries(
      found.map(({ task, atMost }) => [medianName(task), at(atMost, deciles.indexOf(0.5)).size]),
    ),
    tables: [
      {
        name: "deciles",
        caption:
          "absolute entries of the task vectors: how many are exactly 0, and what so many of the " +
          `others are at most (${looked} looked at)`,
        table: {
          head: ["expert", "exactly 0", ...deciles.map(wholePercent)],
          body: found.map(({ task, unmoved, atMost }) => [
            task,
            wholePercent(unmoved),
            ...atMost.map(({ size }) => size.toExponential(1)),
          ]),
        },
      },
    ],
    figures: [
      {
        name: "deciles",
        title: "Absolute entries of the task vectors that are not 0, by decile",
        spec: linesSpec({
          title: "",
          x: "part of the entries, %",
          y: "|entry|, at most",
          spacing: "linear",
          points: found.flatMap(({ task, atMost }) =>
            atMost.slice(0, -1).map(({ part, size }) => ({ x: 100 * part, y: size, series: task })),
          ),
        }),
      },
    ],
  };
}

/** What DARE is put in front of, and what each is called with it: `dare` is task arithmetic behind DARE. */
const dareNames = {
  average: "dare-average",
  "task-arithmetic": "dare",
  fisher: "dare-fisher",
  regmean: "dare-regmean",
  ties: "dare-ties",
} as const;
// RegMean at the α that is customary: a point of its grid inverts every Gram matrix anew.
const customaryValues: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  regmean: { alpha: 0.9 },
};
// As the paper searches TIES: λ to 1, and the part that is kept.
const searches: Readonly<Record<string, Method["grid"]>> = {
  ties: { ...unitLambdas, density: [0.1, 0.2, 0.3] },
};
const pairCandidates = Object.entries(dareNames).flatMap(([method, withDare]): Candidate[] => [
  { ...given(method, method, customaryValues[method]), grid: searches[method] },
  behindDare(withDare, method, customaryValues[method], searches[method]),
]);

/** Table 1 and figure 5: pairs, with DARE and without. */
async function pairs(lab: Lab): Promise<Produced> {
  const { outcomes, ...found } = await everyPair(lab, pairCandidates);
  const accuracy = (method: string) => averageAccuracy(found.rows, method);
  const body = Object.entries(dareNames).map(([method, withDare]) => [
    method,
    (100 * (accuracy(withDare) - accuracy(method))).toFixed(1),
    outcomes.flatMap((outcome) => rateOf(outcome, withDare, lab)).join(", "),
  ]);
  const bySeed = lab.seeds.length > 1 ? " and seed by seed" : "";
  return {
    ...found,
    tables: [
      {
        name: "gains",
        caption:
          "points that DARE adds, on average over all pairs; and the p that the validation " +
          `examples chose among ${dareRates.join(", ")}, pair by pair${bySeed}`,
        table: { head: ["method", "points", "p"], body },
      },
      ...found.tables,
    ],
  };
}

/** The experts' average with part of their task vectors droppedAverage. */
const droppedAverage = ({ average }: Findings, { tasks }: Lab, name: Dropper, rate: number): number =>
  average(rowName(name, rate), tasks);

/** That DARE in front of a method loses nothing. */
const doesNotHurt = (called: string, method: keyof typeof dareNames): Claim =>
  claim(
    `DARE does not hurt ${called}, over all pairs`,
    ({ average }) => average(dareNames[method]) >= average(method),
  );

export const dareExperiments: readonly Experiment[] = [
  {
    id: "dare/drop-rates",
    what: "an expert's accuracy as its task vector loses entries: DARE, DropOnly, magnitude pruning",
    minutes: [1, 7],
    run: droppedEntries,
    claims: [
      claim(
        "With 90 % dropped, DARE is within two points of the expert",
        (found, lab) =>
          droppedAverage(found, lab, "dare", 0) - droppedAverage(found, lab, "dare", 0.9) <= 0.02,
      ),
      claim(
        "With 90 % dropped, DARE is better than dropping without rescaling",
        (found, lab) =>
          droppedAverage(found, lab, "drop only", 0.9) < droppedAverage(found, lab, "dare", 0.9),
      ),
      claim(
        "With 90 % dropped, DARE is better than magnitude pruning",
        (found, lab) =>
          droppedAverage(found, lab, "magnitude pruning", 0.9) < droppedAverage(found, lab, "dare", 0.9),
      ),
    ],
  },
  {
    id: "dare/deltas",
    what: "how large the entries of task vectors are (deciles)",
    minutes: [1, 2],
    models: 0,
    run: entrySizes,
    claims: [
      claim("Most entries that moved are within 0.002 of nothing, for every expert", ({ numbers }) =>
        Object.values(numbers).every((median) => median < 0.002),
      ),
    ],
  },
  {
    id: "dare/pairs",
    what: "pairs merged by five methods, with DARE in front and without",
    minutes: [2, 22],
    run: pairs,
    claims: [
      doesNotHurt("task arithmetic", "task-arithmetic"),
      doesNotHurt("TIES", "ties"),
      claim("DARE adds something to the five methods, on average", ({ average }) => {
        let gains = 0;
        for (const [method, withDare] of Object.entries(dareNames))
          gains = gains + average(withDare) - average(method);
        return gains > 0;
      }),
    ],
  },
];
