import { expect, test } from "vitest";
import { experiments } from "../../src/reproduce/index.js";
import type { Lab, Produced } from "../../src/reproduce/types.js";
import type { ResultRow } from "../../src/report/rows.js";

const lab = {
  tasks: ["a", "b", "c"],
  heldOut: ["h"],
  families: ["small-weak", "small-strong", "large-weak", "large-strong"].map((name) => ({ name })),
} as unknown as Lab;

/** Rows of methods: one score on every task, or one on each of a, b, c and h. */
const rowsOf = (scores: Readonly<Record<string, number | readonly number[]>>): ResultRow[] =>
  Object.entries(scores).flatMap(([method, score]) =>
    [...lab.tasks, ...lab.heldOut].flatMap((task, i): ResultRow[] => {
      const value = typeof score === "number" ? score : score[i];
      return value === undefined
        ? []
        : [{ method, task, split: "test", metric: "accuracy", value, n: 100, seed: 0 }];
    }),
  );
const of = (scores: Readonly<Record<string, number | readonly number[]>>): Produced => ({
  rows: rowsOf(scores),
  tables: [],
  figures: [],
});
const counted = (numbers: Readonly<Record<string, number>>): Produced => ({
  rows: [],
  tables: [],
  figures: [],
  numbers,
});

const language = {
  "task-arithmetic": 0.7,
  dare: 0.6,
  ties: 0.5,
  "dare-ties": 0.4,
  supermerge: 0.8,
  hierarchical: 0.79,
};
const vision = {
  "task-arithmetic": 0.7,
  ties: 0.6,
  "adamerging++": 0.5,
  supermerge: 0.8,
  hierarchical: 0.79,
};
const tanh = (inside: number, outside: number) =>
  of({ "with tanh": [inside, inside, inside, outside], "without tanh": 0.5 });

/** Methods at every λ, by a curve. */
const swept = (curves: Readonly<Record<string, (lambda: number) => number>>) =>
  of(
    Object.fromEntries(
      Object.entries(curves).flatMap(([name, curve]) =>
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((tenth) => [`${name}, λ ${tenth / 10}`, curve(tenth / 10)]),
      ),
    ),
  );
const hill = (lambda: number) => 0.8 - (lambda - 0.5) ** 2;
const rising = (lambda: number) => 0.5 + 0.3 * lambda;
const flat = () => 0.6;

const dropped = (dare: number, only: number, pruned: number) =>
  of({ "dare, p 0": 0.9, "dare, p 0.9": dare, "drop only, p 0.9": only, "magnitude pruning, p 0.9": pruned });
const five = {
  average: 0.5,
  "dare-average": 0.5,
  "task-arithmetic": 0.5,
  dare: 0.5,
  fisher: 0.5,
  "dare-fisher": 0.5,
  regmean: 0.5,
  "dare-regmean": 0.5,
  ties: 0.5,
  "dare-ties": 0.5,
};
const selected = (best: number) =>
  Object.fromEntries(
    [1, 2, 3, 4, 9].map((n) => [`parameter-selection, resample ${n}`, n === 3 ? best : 0.1]),
  );
const one = (singles: number, average: number, selection: number, resampled: number) => ({
  ...of({ average, "parameter-selection": selection, ...selected(resampled) }),
  numbers: { "average, sub-models, on average": singles },
});
const grown = (methods: Readonly<Record<string, readonly [number, number]>>, out: readonly number[]) =>
  counted(
    Object.fromEntries([
      ...Object.entries(methods).flatMap(
        ([name, [few, most]]) =>
          [
            [`held-in, ${name}, 2 experts`, few],
            [`held-in, ${name}, 8 experts`, most],
          ] as const,
      ),
      ...out.map((value, i) => [`held-out, average, ${i} experts`, value] as const),
    ]),
  );
const all = (few: number, most: number) =>
  ({
    average: [few, most],
    "task-arithmetic": [few, most],
    ties: [few, most],
    "dare-ties": [few, most],
  }) as const;
/** Held-in by family, in the lab's order, and how far methods differ on the first and the last. */
const based = (values: readonly number[], first = 0.3, last = 0.1) =>
  counted({
    ...Object.fromEntries(
      values.flatMap((value, i) =>
        [2, 3].map((k) => [`held-in, ${lab.families[i]!.name}, ${k} experts`, value]),
      ),
    ),
    "largest difference of methods, small-weak": first,
    "largest difference of methods, large-strong": last,
  });
const means = (...values: readonly number[]) =>
  Object.fromEntries(values.map((value, i) => [`mean |update|, ${lab.tasks[i]}`, value]));
const modules = "largest over smallest part of an expert's own mean, of one module";
const layers = (ratios: readonly number[], unlike: number) =>
  counted({
    ...Object.fromEntries(ratios.map((value, i) => [`largest over smallest layer, ${lab.tasks[i]}`, value])),
    "largest over smallest expert, of one layer": unlike,
  });
const learned = (nothing: readonly [number, number], below: readonly [number, number]) =>
  counted({
    "part of nothing, supermerge": nothing[0],
    "part of nothing, adamerging++": nothing[1],
    "part below nothing, supermerge": below[0],
    "part below nothing, adamerging++": below[1],
  });
const halves = (earlier: number, later: number) =>
  counted({
    "mean |coefficient| of the earlier half, supermerge": earlier,
    "mean |coefficient| of the later half, supermerge": later,
  });
const counts = (values: readonly number[]) =>
  of(Object.fromEntries([8, 16, 32, 64, 128, 512].map((n, i) => [`${n} examples`, values[i]!])));
const losses = (labels: number, entropy: number, distillation: number) =>
  of({ "cross-entropy": labels, entropy, distillation });

/** Of each claim of an experiment, in its order: what it holds of, and what it does not hold of. */
const cases: Readonly<Record<string, readonly (readonly [Produced, Produced])[]>> = {
  "supermerge/table-1": [
    [of(language), of({ ...language, dare: 0.81 })],
    // Above on average, but second on two tasks of three.
    [of(language), of({ ...language, hierarchical: 0.3, "task-arithmetic": [0.81, 0.81, 0.61] })],
    [of(language), of({ ...language, hierarchical: 0.77 })],
  ],
  "supermerge/table-2": [
    [of({ ...language, ties: [0.9, 0.9, 0.9, 0.1] }), of({ ...language, ties: [0.1, 0.1, 0.1, 0.9] })],
    [of(language), of({ ...language, "dare-ties": [0.1, 0.1, 0.1, 0.6] })],
  ],
  "supermerge/table-3": [
    [of(vision), of({ ...vision, "adamerging++": 0.9 })],
    [of(vision), of({ ...vision, ties: 0.8 })],
    [of(vision), of({ ...vision, hierarchical: 0.9 })],
  ],
  "supermerge/table-4": [
    [tanh(0.6, 0.4), tanh(0.4, 0.6)],
    [tanh(0.4, 0.6), tanh(0.6, 0.4)],
  ],
  "supermerge/table-5": [
    [counted({ coefficients: 99, parameters: 1e5 }), counted({ coefficients: 101, parameters: 1e5 })],
    [
      counted({ "equation 6, all at once, over two at a time": 1.3 }),
      counted({ "equation 6, all at once, over two at a time": 1 }),
    ],
  ],
  "supermerge/table-6": [
    [
      of({ ...vision, "task-arithmetic": [0, 0, 0, 0.9] }),
      of({ ...vision, "task-arithmetic": [1, 1, 1, 0.7] }),
    ],
    [of({ ...vision, ties: [0, 0, 0, 0.9] }), of({ ...vision, ties: [0, 0, 0, 0.9], "adamerging++": 0.95 })],
  ],
  "supermerge/figure-2": [
    [
      swept({ "task-arithmetic": hill, ties: rising, dare: hill, "dare-ties": hill }),
      swept({ "task-arithmetic": hill, ties: rising, dare: hill, "dare-ties": flat }),
    ],
    [swept({ dare: hill, ties: hill }), swept({ dare: hill, ties: rising })],
  ],
  "supermerge/figure-3": [
    [layers([3, 2.1, 5], 1), layers([3, 1.8, 5], 9)],
    [layers([1, 1, 1], 2.1), layers([9, 9, 9], 1.9)],
  ],
  "supermerge/figure-5": [
    [learned([0.01, 0.2], [0, 0]), learned([0.2, 0.1], [0, 0])],
    [learned([0, 0], [0.1, 0]), learned([0, 0], [0.1, 0.05])],
    [halves(0.3, 0.4), halves(0.4, 0.3)],
    [of({ supermerge: 0.7, "adamerging++": 0.6 }), of({ supermerge: 0.6, "adamerging++": 0.7 })],
  ],
  "adamerging/curve": [
    [
      of({ adamerging: 0.7, "adamerging-task-wise": 0.6 }),
      of({ adamerging: 0.6, "adamerging-task-wise": 0.6 }),
    ],
    [
      counted({
        "validation at the end, adamerging": 0.7,
        "validation at the end, adamerging-task-wise": 0.6,
      }),
      counted({
        "validation at the end, adamerging": 0.5,
        "validation at the end, adamerging-task-wise": 0.6,
      }),
    ],
    [counted({ "gain, adamerging": 0.1 }), counted({ "gain, adamerging": -0.1 })],
  ],
  "dare/drop-rates": [
    [dropped(0.89, 0, 0), dropped(0.87, 0, 0)],
    [dropped(0.8, 0.7, 0.9), dropped(0.8, 0.8, 0.1)],
    [dropped(0.8, 0.9, 0.7), dropped(0.8, 0.1, 0.85)],
  ],
  "dare/deltas": [[counted({ a: 0.001, b: 0.0019 }), counted({ a: 0.001, b: 0.0021 })]],
  "dare/pairs": [
    [of(five), of({ ...five, dare: 0.49 })],
    [of(five), of({ ...five, "dare-ties": 0.49 })],
    [
      of({ ...five, "dare-fisher": 0.6, "dare-ties": 0.45 }),
      of({ ...five, "dare-fisher": 0.52, "dare-ties": 0.45 }),
    ],
  ],
  "rankmean/pairs": [
    [of({ average: 0.5, rankmean: 0.6 }), of({ average: 0.6, rankmean: 0.5 })],
    [of({ rankmean: 0.6, "rankmean, reversed": 0.5 }), of({ rankmean: 0.5, "rankmean, reversed": 0.6 })],
    [
      of({ rankmean: 0.6, "rankmean, finer-grained": 0.615 }),
      of({ rankmean: 0.6, "rankmean, finer-grained": 0.57 }),
    ],
  ],
  "rankmean/magnitudes": [
    [counted({ ...means(1, 1, 1), [modules]: 1.2 }), counted({ ...means(1, 2, 3), [modules]: 1.05 })],
    [counted({ ...means(1, 1.05, 1.2), [modules]: 1 }), counted({ ...means(1, 1.05, 1.02), [modules]: 9 })],
  ],
  "parameter-selection/single-task": [
    [one(0.5, 0.6, 0.1, 0.1), one(0.5, 0.4, 0.9, 0.9)],
    [one(0.5, 0.1, 0.6, 0.1), one(0.5, 0.9, 0.4, 0.9)],
    [one(0.9, 0.5, 0.6, 0.1), one(0.1, 0.6, 0.5, 0.9)],
    [one(0.9, 0.9, 0.5, 0.6), one(0.1, 0.1, 0.6, 0.5)],
  ],
  "parameter-selection/multi-task": [
    [
      of({ average: 0.9, "parameter-selection": 0.5, ...selected(0.6) }),
      of({ average: 0.1, "parameter-selection": 0.6, ...selected(0.6) }),
    ],
    [
      of({ average: 0.5, "parameter-selection": 0.9, ...selected(0.6) }),
      of({ average: 0.6, "parameter-selection": 0.1, ...selected(0.5) }),
    ],
  ],
  "at-scale/experts": [
    [grown(all(0.9, 0.8), []), grown({ ...all(0.9, 0.8), ties: [0.7, 0.75] }, [])],
    [grown(all(1, 1), [1.1, 0.9, 1.01]), grown(all(1, 1), [1.1, 0.9])],
  ],
  "at-scale/bases": [
    [based([0.5, 0.6, 0.3, 0.4]), based([0.5, 0.6, 0.4, 0.3])],
    [based([0.3, 0.5, 0.4, 0.6]), based([0.5, 0.3, 0.4, 0.6])],
    [based([0, 0, 0, 0], 0.3, 0.2), based([0, 0, 0, 0], 0.2, 0.2)],
  ],
  "ablation/examples": [
    [counts([0.5, 0.9, 0.1, 0.1, 0.1, 0.6]), counts([0.6, 0.6, 0.6, 0.6, 0.6, 0.6])],
    [counts([0.5, 0.6, 0.595, 0.7, 0.7, 0.7]), counts([0.5, 0.7, 0.6, 0.7, 0.7, 0.8])],
  ],
  "ablation/loss": [
    [losses(0.6, 0.5, 0), losses(0.5, 0.6, 1)],
    [losses(0, 0.5, 0.6), losses(1, 0.6, 0.5)],
  ],
};

test.each(
  experiments.flatMap((experiment) => experiment.claims.map((claim, i) => ({ experiment, claim, i }))),
)("$experiment.id: $claim.text", ({ experiment, claim, i }) => {
  const [agrees, differs] = cases[experiment.id]![i]!;
  expect(claim.holds(agrees, lab), "where it should hold").toBe(true);
  expect(claim.holds(differs, lab), "where it should not").toBe(false);
});

test("every claim has its cases, and no case is left over", () => {
  const counts = (of: Iterable<readonly [string, number]>) =>
    Object.fromEntries([...of].filter(([, count]) => count > 0));
  expect(counts(Object.entries(cases).map(([id, { length }]) => [id, length]))).toEqual(
    counts(experiments.map(({ id, claims }) => [id, claims.length])),
  );
});

test("what cannot be told is not judged", () => {
  const told = (id: string, i: number, found: Produced, more: Partial<Lab> = {}) =>
    experiments.find((one) => one.id === id)!.claims[i]!.holds(found, { ...lab, ...more });
  expect(told("supermerge/table-1", 0, of({ supermerge: 0.8 }))).toBeUndefined();
  expect(told("supermerge/table-1", 2, of({ supermerge: 0.8 })), "two experts have no tree").toBeUndefined();
  expect(told("supermerge/table-2", 1, of({ "dare-ties": 0.4 })), "no scores of the others").toBeUndefined();
  expect(told("rankmean/magnitudes", 0, counted({})), "no such number").toBeUndefined();
  expect(
    told("supermerge/table-5", 1, counted({ "equation 6, all at once, over two at a time": 1 }), {
      tasks: ["a", "b"],
    }),
    "two at a time are all",
  ).toBeUndefined();
  expect(told("at-scale/experts", 1, grown(all(1, 1), [])), "every task was merged").toBeUndefined();
  expect(
    told("at-scale/bases", 1, based([0.5, 0.6]), { families: lab.families.slice(0, 2) }),
    "one size",
  ).toBeUndefined();
});
