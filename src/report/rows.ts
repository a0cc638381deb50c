import { z } from "zod";
import { interval, mean, type Interval } from "./interval.js";

/** One measured number, as files hold it. Every table, card and figure is made from a list of these. */
export const resultRow = z.object({
  method: z.string(),
  task: z.string(),
  split: z.enum(["validation", "test"]),
  metric: z.enum(["accuracy", "exact-match"]),
  /** A fraction. */
  value: z.number(),
  /** Examples it was measured on. */
  n: z.number(),
  seed: z.number(),
});
export type ResultRow = Readonly<z.infer<typeof resultRow>>;

export const distinct = <T>(items: readonly T[]): T[] => [...new Set(items)];

const tested = (rows: readonly ResultRow[], method: string, task: string): ResultRow[] =>
  rows.filter((row) => row.method === method && row.task === task && row.split === "test");

/** A method's test score on a task over its seeds; undefined where there is none. */
export function testScore(rows: readonly ResultRow[], method: string, task: string): Interval | undefined {
  const values = tested(rows, method, task).map(({ value }) => value);
  if (values.length === 0) return undefined;
  return interval(values);
}

/** A method's mean over tasks, seed by seed; only of seeds at which it has all of them. */
function averages(rows: readonly ResultRow[], method: string, tasks: readonly string[]): Map<number, number> {
  const seeds = distinct(rows.filter((row) => row.method === method).map(({ seed }) => seed));
  const found = new Map<number, number>();
  for (const seed of seeds) {
    const values = tasks.map((task) => tested(rows, method, task).find((row) => row.seed === seed)?.value);
    if (values.every((value) => value !== undefined)) found.set(seed, mean(values));
  }
  return found;
}

/** A method's mean over tasks, over its seeds; undefined where it lacks a task. */
export function averageOf(
  rows: readonly ResultRow[],
  method: string,
  tasks: readonly string[],
): Interval | undefined {
  const values = [...averages(rows, method, tasks).values()];
  if (values.length === 0) return undefined;
  return interval(values);
}

/**
 * One method's average minus another's, seed by seed: what the seeds have in common falls away.
 * Undefined without two seeds that both have.
 */
export function differenceOf(
  rows: readonly ResultRow[],
  method: string,
  other: string,
  tasks: readonly string[],
): Interval | undefined {
  const theirs = averages(rows, other, tasks);
  const values: number[] = [];
  for (const [seed, mine] of averages(rows, method, tasks)) {
    const theirsThen = theirs.get(seed);
    if (theirsThen !== undefined) values.push(mine - theirsThen);
  }
  if (values.length < 2) return undefined;
  return interval(values);
}

/**
 * Whether a method was adapted on the test inputs (without their labels): `compare` and a merge's own
 * card say it so.
 */
export const isTestAdapted = (method: string): boolean => /@test$|\(test inputs\)$/.test(method);
