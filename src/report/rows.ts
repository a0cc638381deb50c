import { at } from "../at.js";
import { z } from "zod";

/** A mean with its 95 % interval. */
export interface Interval {
  readonly mean: number;
  /** Half the interval's width (Student's t over the values); 0 for a single one. */
  readonly half: number;
  readonly count: number;
}

/** t at 97.5 % for 1 to 30 degrees of freedom. */
const students = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131,
  2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
];

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** The middle value; of an even number, the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length % 2 === 1) return at(sorted, middle);
  return mean(sorted.slice(middle - 1, middle + 1));
}

/** Mean and 95 % interval of some values, as draws from one normal distribution. */
export function interval(values: readonly number[]): Interval {
  const count = values.length;
  const middle = mean(values);
  if (count < 2) return { mean: middle, half: 0, count };
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (count - 1));
  // Beyond the table, its known approach to 1.96.
  return {
    mean: middle,
    half: ((students[count - 2] ?? 1.96 + 2.5 / (count - 1)) * deviation) / Math.sqrt(count),
    count,
  };
}

/** One measured number, as files hold it. Every table, card and figure is made from a list of these. */
export const resultRow = z.object({
  method: z.string(),
  task: z.string(),
  split: z.enum(["validation", "test"]),
  metric: z.string(),
  /** A fraction; a correlation is one between −1 and 1. */
  value: z.number(),
  /** The task's further metrics. */
  also: z.record(z.string(), z.number()).optional(),
  /** Examples it was measured on. */
  n: z.number(),
  seed: z.number(),
  /** Of accuracy: 1 where an example is answered rightly, example by example; in several templates, each, by |. */
  right: z
    .string()
    .regex(/^[01|]*$/)
    .optional(),
});
export type ResultRow = Readonly<z.infer<typeof resultRow>>;

/** Rows without the marks of every example: for people and programs that read numbers. */
export const withoutMarks = (rows: readonly ResultRow[]): ResultRow[] =>
  rows.map((row) => ({ ...row, right: undefined }));

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
