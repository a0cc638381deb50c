import { UserError } from "../errors.js";
import { averageOf, distinct, type ResultRow } from "../report/rows.js";
import type { Claim, Lab, Produced, Sureness } from "./types.js";
import { worldsOf } from "./worlds.js";

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

/** Draws of a world: enough for a part in a thousand. */
const draws = 2000;

/** What is found, noting whether anything of it was measured on examples. */
function watched(found: Findings, note: { average: boolean }): Findings {
  const use = <T>(value: T): T => {
    note.average = true;
    return value;
  };
  return {
    ...found,
    get rows() {
      return use(found.rows);
    },
    average: (method, tasks) => use(found.average(method, tasks)),
  };
}

/**
 * Something that a paper says.
 * @param isTrue undefined where it cannot be told, as where it asks for what is not there
 */
export const claim = (text: string, isTrue: (found: Findings, lab: Lab) => boolean | undefined): Claim => {
  const told = (found: Findings, lab: Lab): boolean | undefined => {
    try {
      return isTrue(found, lab);
    } catch (error) {
      if (error instanceof NotFound) return undefined;
      throw error;
    }
  };
  return {
    text,
    holds: (produced, lab) => told(findingsOf(produced), lab),
    sureness(produced, lab) {
      const note = { average: false };
      told(watched(findingsOf(produced), note), lab);
      const worlds = note.average ? worldsOf(produced.rows) : undefined;
      if (!worlds) return undefined;
      const held = Array.from({ length: draws }, (_, draw) =>
        told(findingsOf({ ...produced, rows: worlds.at(draw) }), lab),
      );
      return { share: held.filter(Boolean).length / draws, examples: worlds.examples };
    },
  };
};

/** What is said of a claim: where it was measured on examples, only as far as these bear it out. */
export const verdicts = ["yes", "no", "not settled", "cannot be told"] as const;
export type Verdict = (typeof verdicts)[number];

/** Fewer test examples settle nothing. */
export const fewestExamples = 1000;

/**
 * A claim's verdict: yes or no where it holds in as many worlds as a two-sided interval of 95 % asks for, corrected for
 * the number of claims that are made of one table (Bonferroni), over 1,000 test examples at least.
 * @param of claims that are told from the same rows
 */
export function verdictOf(holds: boolean | undefined, sureness: Sureness | undefined, of: number): Verdict {
  if (holds === undefined) return "cannot be told";
  if (!sureness) return holds ? "yes" : "no";
  const { share, examples } = sureness;
  const tail = 0.05 / 2 / Math.max(1, of);
  if (examples < fewestExamples) return "not settled";
  if (holds && share >= 1 - tail) return "yes";
  if (!holds && share <= tail) return "no";
  return "not settled";
}

/** A claim, and what is said of it. */
export interface ToldClaim {
  readonly text: string;
  /** Whether what was measured says so, however surely. */
  readonly holds: boolean | undefined;
  readonly sureness: Sureness | undefined;
  readonly verdict: Verdict;
}

/** How sure a verdict is, in words. */
export function surenessText({ holds, sureness }: Pick<ToldClaim, "holds" | "sureness">): string {
  if (!sureness || holds === undefined) return "";
  const { share, examples } = sureness;
  const few = examples < fewestExamples ? `, fewer than ${fewestExamples.toLocaleString("en")}` : "";
  const percent = (100 * share).toFixed(share > 0.99 || share < 0.01 ? 2 : 0);
  return (
    `measured ${holds ? "so" : "otherwise"}; it holds in ${percent} % of what is drawn from ` +
    `${examples.toLocaleString("en")} test examples${few}`
  );
}

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
