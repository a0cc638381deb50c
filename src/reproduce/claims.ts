import { UserError } from "../errors.js";
import { averageOf, distinct, type ResultRow } from "../report/rows.js";
import type { Claim, Lab, Produced } from "./types.js";

/** Thrown where a number is asked for that was not found. */
class NotFound extends UserError {}

/** A method's average over some tasks (default: all), a fraction. @throws UserError where it lacks a task */
export function averageAccuracy(
  rows: readonly ResultRow[],
  method: string,
  tasks: readonly string[] = distinct(rows.map(({ task }) => task)),
): number {
  const found = averageOf(rows, method, tasks);
  if (!found) throw new NotFound(`there are no scores of "${method}" on all of ${tasks.join(", ")}`);
  return found.mean;
}

/** A number by its name. @throws UserError where there is none of it */
export function numberNamed(numbers: Readonly<Record<string, number>>, name: string): number {
  const found = numbers[name];
  if (found === undefined) throw new NotFound(`there is no number "${name}"`);
  return found;
}

/** What an experiment found, as claims ask for it: what is not there ends a claim, which cannot be told then. */
export interface Findings {
  readonly rows: readonly ResultRow[];
  readonly numbers: Readonly<Record<string, number>>;
  /** A method's average over some tasks (default: all), a fraction. */
  average(method: string, tasks?: readonly string[]): number;
  /** One of the numbers. */
  number(name: string): number;
  /** All numbers whose names begin so, at least one. */
  numbersOf(prefix: string): number[];
}

const findingsOf = ({ rows, numbers = {} }: Produced): Findings => ({
  rows,
  numbers,
  average: (method, tasks) => averageAccuracy(rows, method, tasks),
  number: (name) => numberNamed(numbers, name),
  numbersOf(prefix) {
    const found = Object.entries(numbers).filter(([name]) => name.startsWith(prefix));
    if (found.length === 0) throw new NotFound(`there are no numbers "${prefix}…"`);
    return found.map(([, value]) => value);
  },
});

/**
 * Something that a paper says.
 * @param isTrue undefined where it cannot be told, as where it asks for what is not there
 */
export const claim = (text: string, isTrue: (found: Findings, lab: Lab) => boolean | undefined): Claim => ({
  text,
  holds(produced, lab) {
    try {
      return isTrue(findingsOf(produced), lab);
    } catch (error) {
      if (error instanceof NotFound) return undefined;
      throw error;
    }
  },
});

/** That one method's average is above every other's of these, on some tasks. */
export const bestOf = (
  text: string,
  method: string,
  others: readonly string[],
  tasksOf: (lab: Lab) => readonly string[] = ({ tasks }) => tasks,
): Claim =>
  claim(text, (found, lab) => {
    const tasks = tasksOf(lab);
    const mine = found.average(method, tasks);
    return others.map((other) => found.average(other, tasks)).every((theirs) => mine > theirs);
  });
