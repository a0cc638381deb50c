import { methods } from "../methods/index.js";
import type { Method } from "../methods/types.js";
import { averageOf, distinct, type ResultRow } from "../report/rows.js";
import { percentOf, resultTable, tableCaption } from "../report/table.js";
import type { Candidate } from "../compare/candidates.js";
import type { Claim, Lab, Outcome, Produced, Shown } from "./types.js";

export const methodNamed = (name: string): Method => methods.find((one) => one.name === name)!;

/** A method under a name of its own, with some parameters given. */
export const given = (
  name: string,
  method: string,
  values?: Readonly<Record<string, unknown>>,
): Candidate => ({ name, method: methodNamed(method), given: values });
/** SuperMerge with some settings changed. */
export const trained = (name: string, settings: Readonly<Record<string, unknown>>): Candidate => ({
  name,
  settings,
});

/**
 * What the base scores: task arithmetic with nothing of anything, so that it is written and measured as
 * the rest is.
 */
export const pretrained: Candidate = given("pretrained", "task-arithmetic", { lambda: 0 });

/** DARE's paper searches p from 0.1 to 0.9; every second step of it, to take half as long. */
export const dareRates = [0.1, 0.3, 0.5, 0.7, 0.9];
/** A method with DARE in front of it, whose p is searched beside what the method searches. */
export const behindDare = (
  name: string,
  method: string,
  values?: Readonly<Record<string, unknown>>,
): Candidate => ({ name, method: methodNamed(method), given: values, grid: { dareP: dareRates } });
/** The p that was found for such a method, seed by seed. */
export const rateOf = (outcome: Outcome, name: string, { seeds }: Lab): number[] =>
  seeds.map((seed) => (outcome.values(name, seed)["dareP"] as readonly number[])[0]!);

/** Rows of some tasks alone. */
export const onTasks = (rows: readonly ResultRow[], tasks: readonly string[]): ResultRow[] =>
  rows.filter(({ task }) => tasks.includes(task));

/** A table of rows with its caption. */
export const tableOf = (
  name: string,
  rows: readonly ResultRow[],
  lab: Pick<Lab, "synthetic"> & { readonly valPerTask?: number | undefined },
  note = "",
): Shown => ({
  name,
  caption: `${note}${note ? "; " : ""}${tableCaption(rows, lab.synthetic, lab.valPerTask)}`,
  table: resultTable(rows),
});

/** A method's average, a fraction; undefined where it has none. */
export const average = (
  rows: readonly ResultRow[],
  method: string,
  tasks: readonly string[] = distinct(rows.map(({ task }) => task)),
): number | undefined => averageOf(rows, method, tasks)?.mean;

/** That one method's average is above every other's of these, on some tasks. */
export const bestOf = (
  text: string,
  method: string,
  others: readonly string[],
  where: (lab: Lab) => readonly string[] = ({ tasks }) => tasks,
): Claim => ({
  text,
  holds({ rows }: Produced, lab: Lab) {
    const mine = average(rows, method, where(lab));
    const theirs = others.map((other) => average(rows, other, where(lab)));
    return mine === undefined || theirs.some((value) => value === undefined)
      ? undefined
      : theirs.every((value) => mine > value!);
  },
});

/**
 * Every pair of the experts merged by some candidates: what each came to, a table of the averages over
 * all pairs, one a pair, and rows whose task says in which pair it was.
 */
export async function everyPair(
  lab: Lab,
  candidates: readonly (string | Candidate)[],
): Promise<Produced & { readonly outcomes: readonly Outcome[] }> {
  const pairs = lab.tasks.flatMap((a, i) => lab.tasks.slice(i + 1).map((b): [string, string] => [a, b]));
  const tables: Shown[] = [];
  const rows: ResultRow[] = [];
  const outcomes: Outcome[] = [];
  for (const pair of pairs) {
    const found = await lab.compare(`pair-${pair.join("+")}`, candidates, { tasks: pair });
    outcomes.push(found);
    tables.push(tableOf(pair.join("-"), found.rows, lab, `${pair.join(" and ")} merged`));
    rows.push(...found.rows.map((row) => ({ ...row, task: `${row.task} (${pair.join("+")})` })));
  }
  if (pairs.length > 1) {
    const tasks = distinct(rows.map(({ task }) => task));
    const body = distinct(rows.map(({ method }) => method)).map((method) => [
      method,
      percentOf(averageOf(rows, method, tasks)),
    ]);
    tables.unshift({
      name: "all-pairs",
      caption:
        "average accuracy in % over both tasks of every pair, which is what the claims below are about",
      table: { head: ["method", "average"], body },
    });
  }
  return { rows, tables, figures: [], outcomes };
}
