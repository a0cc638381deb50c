/**
 * How sure a claim is: it is asked again in worlds that are drawn from what was measured. A world has the seeds and the
 * test examples of every task drawn anew, with replacement, the same for all methods: what they have in common (a seed,
 * an example) falls away, as in any paired comparison.
 */
import seedrandom from "seedrandom";
import { at } from "../at.js";
import { distinct, median, type ResultRow } from "../report/rows.js";

/** How often each of `count` examples is drawn, of so many draws. */
function timesDrawn(count: number, random: () => number): Uint32Array {
  const times = new Uint32Array(count);
  for (let i = 0; i < count; i++) {
    const one = Math.floor(random() * count);
    times[one] = (times[one] ?? 0) + 1;
  }
  return times;
}

/** The part of examples that are right, each counted as often as it was drawn. */
function share(marks: Uint8Array, times: Uint32Array): number {
  let right = 0;
  for (let i = 0; i < marks.length; i++) right += (marks[i] ?? 0) * (times[i] ?? 0);
  return right / marks.length;
}

/** A row's marks, by template. */
const marksOf = ({ right }: ResultRow): Uint8Array[] =>
  (right ?? "").split("|").map((one) => Uint8Array.from(one, Number));

/** The test set that a row was measured on: experiments say behind a task what was merged, "cb (cb+copa)". */
const testSetOf = ({ task }: ResultRow): string => task.replace(/ \(.*\)$/, "");

export interface Worlds {
  /** Test examples of all tasks, each counted once: at other seeds they are the same ones. */
  readonly examples: number;
  /** The rows as they are in a world. */
  at(draw: number): ResultRow[];
}

/** Worlds of some rows; undefined where of some it is not known which examples are right. */
export function worldsOf(rows: readonly ResultRow[]): Worlds | undefined {
  const tested = rows.filter(({ split }) => split === "test");
  if (tested.length === 0 || tested.some(({ right }) => right === undefined)) return undefined;
  const marked = tested.map((row) => ({ row, marks: marksOf(row) }));
  const seeds = distinct(tested.map(({ seed }) => seed)).sort((a, b) => a - b);
  const counts = new Map(tested.map((row) => [testSetOf(row), row.n]));
  return {
    examples: [...counts.values()].reduce((sum, n) => sum + n, 0),
    at(draw) {
      const random = seedrandom(`world/${draw}`);
      const drawnSeeds = seeds.map(() => at(seeds, Math.floor(random() * seeds.length)));
      const known = new Map<string, Uint32Array>();
      const times = (row: ResultRow, count: number): Uint32Array => {
        const key = `${testSetOf(row)}/${count}`;
        const found = known.get(key) ?? timesDrawn(count, seedrandom(`world/${draw}/${key}`));
        known.set(key, found);
        return found;
      };
      const bySeed = new Map<number, ResultRow[]>();
      for (const { row, marks } of marked) {
        if (!drawnSeeds.includes(row.seed)) continue;
        const value = median(marks.map((one) => share(one, times(row, one.length))));
        const atSeed = bySeed.get(row.seed) ?? [];
        atSeed.push({ ...row, value });
        bySeed.set(row.seed, atSeed);
      }
      // A seed that is drawn twice is two seeds.
      return seeds.flatMap((seed, i) =>
        (bySeed.get(at(drawnSeeds, i)) ?? []).map((row) => ({ ...row, seed })),
      );
    },
  };
}
