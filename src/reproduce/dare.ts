import { linesSpec } from "../report/lines.js";
import type { ResultRow } from "../report/rows.js";
import { average, behindDare, dareRates, everyPair, given, rateOf, tableOf } from "./shared.js";
import type { Experiment, Lab, Produced } from "./types.js";

const rates = [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99];
const droppers = {
  dare: ["dare", "dareP", { rescale: "inverse" }],
  "drop only": ["dare", "dareP", { rescale: "none" }],
  "magnitude pruning": ["magnitude-pruning", "p", {}],
} as const;
type Dropper = keyof typeof droppers;
const rowName = (name: string, rate: number) => `${name}, p ${rate}`;

/** Figures 3, 4, 8 and 9: one fine-tuned model whose task vector loses more and more of its entries. */
async function dropRates(lab: Lab): Promise<Produced> {
  const candidates = Object.entries(droppers).flatMap(([name, [method, parameter, more]]) =>
    rates.map((rate) => given(rowName(name, rate), method, { ...more, [parameter]: rate, lambda: 1 })),
  );
  const rows: ResultRow[] = [];
  // Every expert alone: what is dropped is its own.
  for (const task of lab.tasks)
    rows.push(...(await lab.compare(`drop-${task}`, candidates, { tasks: [task] })).rows);
  const points = Object.keys(droppers).flatMap((name) =>
    rates.map((rate) => ({ x: rate, y: 100 * average(rows, rowName(name, rate), lab.tasks)!, series: name })),
  );
  return {
    rows,
    tables: [tableOf("results", rows, lab, "each expert alone, part p of its task vector dropped")],
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

/** Figure 10: how large the entries of task vectors are. */
async function deltas(lab: Lab): Promise<Produced> {
  const most = 1_000_000;
  const sampled: number[][] = lab.tasks.map(() => []);
  let total = 0;
  const sizes: number[] = [];
  for await (const { base } of lab.look()) sizes.push(base.length);
  for (const size of sizes) total += size;
  const step = Math.max(1, Math.floor(total / most));
  let at = 0;
  for await (const { deltas: all } of lab.look()) {
    const first = (step - (at % step)) % step;
    for (const [e, delta] of all.entries())
      for (let i = first; i < delta.length; i += step) sampled[e]!.push(Math.abs(delta[i]!));
    at += all[0]!.length;
  }
  // Embeddings that were frozen, and rows that no example looked up.
  const unmoved = sampled.map((values) => values.filter((value) => value === 0).length / values.length);
  const deciles = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1];
  const found = sampled.map((values) => {
    const sorted = Float64Array.from(values.filter((value) => value !== 0)).sort();
    return deciles.map((part) => sorted[Math.min(sorted.length - 1, Math.ceil(part * sorted.length) - 1)]!);
  });
  const percent = (part: number) => `${Math.round(100 * part)} %`;
  return {
    rows: [],
    numbers: Object.fromEntries(
      lab.tasks.map((task, i) => [`median of |entry| that moved, ${task}`, found[i]![4]!]),
    ),
    tables: [
      {
        name: "deciles",
        caption:
          "absolute entries of the task vectors: how many are exactly 0, and what so many of the " +
          `others are at most (${step === 1 ? "every entry" : `one entry in ${step}`} looked at)`,
        table: {
          head: ["expert", "exactly 0", ...deciles.map(percent)],
          body: lab.tasks.map((task, i) => [
            task,
            percent(unmoved[i]!),
            ...found[i]!.map((value) => value.toExponential(1)),
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
          points: lab.tasks.flatMap((task, i) =>
            deciles.slice(0, -1).map((part, d) => ({ x: 100 * part, y: found[i]![d]!, series: task })),
          ),
        }),
      },
    ],
  };
}

/** What DARE is put in front of; `dare` is task arithmetic with it. */
const behind = ["average", "task-arithmetic", "fisher", "regmean", "ties"] as const;
const withDare = (method: (typeof behind)[number]) =>
  method === "task-arithmetic" ? "dare" : `dare-${method}`;
// RegMean at the α that is customary: a point of its grid inverts every Gram matrix anew.
const fixed = (method: string) => (method === "regmean" ? { alpha: 0.9 } : undefined);
const merged = behind.flatMap((method) => [
  given(method, method, fixed(method)),
  behindDare(withDare(method), method, fixed(method)),
]);

/** Table 1 and figure 5: pairs, with DARE and without. */
async function pairs(lab: Lab): Promise<Produced> {
  const { outcomes, ...found } = await everyPair(lab, merged);
  const body = behind.map((method) => {
    const gain = 100 * (average(found.rows, withDare(method))! - average(found.rows, method)!);
    return [
      method,
      gain.toFixed(1),
      outcomes.flatMap((outcome) => rateOf(outcome, withDare(method), lab)).join(", "),
    ];
  });
  return {
    ...found,
    tables: [
      {
        name: "gains",
        caption:
          "points that DARE adds, on average over all pairs; and the p that the validation " +
          `examples chose among ${dareRates.join(", ")}, pair by ` +
          `pair${lab.seeds.length > 1 ? " and seed by seed" : ""}`,
        table: { head: ["method", "points", "p"], body },
      },
      ...found.tables,
    ],
  };
}

const at = ({ rows }: Produced, lab: Lab, name: Dropper, rate: number): number =>
  average(rows, rowName(name, rate), lab.tasks)!;
const compared =
  (a: string, b: string) =>
  ({ rows }: Produced): boolean =>
    average(rows, a)! >= average(rows, b)!;

export const dare: readonly Experiment[] = [
  {
    id: "dare/drop-rates",
    what: "an expert's accuracy as its task vector loses entries: DARE, DropOnly, magnitude pruning",
    minutes: [1, 7],
    run: dropRates,
    claims: [
      {
        text: "With 90 % dropped, DARE is within two points of the expert",
        holds: (found, lab) => at(found, lab, "dare", 0) - at(found, lab, "dare", 0.9) <= 0.02,
      },
      {
        text: "With 90 % dropped, DARE is better than dropping without rescaling",
        holds: (found, lab) => at(found, lab, "drop only", 0.9) < at(found, lab, "dare", 0.9),
      },
      {
        text: "With 90 % dropped, DARE is better than magnitude pruning",
        holds: (found, lab) => at(found, lab, "magnitude pruning", 0.9) < at(found, lab, "dare", 0.9),
      },
    ],
  },
  {
    id: "dare/deltas",
    what: "how large the entries of task vectors are (deciles)",
    minutes: [1, 2],
    models: 0,
    run: deltas,
    claims: [
      {
        text: "Most entries that moved are within 0.002 of nothing, for every expert",
        holds: ({ numbers }) => Object.values(numbers!).every((median) => median < 0.002),
      },
    ],
  },
  {
    id: "dare/pairs",
    what: "pairs merged by five methods, with DARE in front and without",
    minutes: [2, 22],
    run: pairs,
    claims: [
      {
        text: "DARE does not hurt task arithmetic, over all pairs",
        holds: compared("dare", "task-arithmetic"),
      },
      { text: "DARE does not hurt TIES, over all pairs", holds: compared("dare-ties", "ties") },
      {
        text: "DARE adds something to the five methods, on average",
        holds: ({ rows }) =>
          behind.reduce((sum, method) => sum + average(rows, withDare(method))! - average(rows, method)!, 0) >
          0,
      },
    ],
  },
];
