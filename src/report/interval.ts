import { at } from "../at.js";

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
