import { UserError } from "../errors.js";
import { findMethod } from "../methods/index.js";
import type { Method } from "../methods/types.js";
import { averageOf, distinct, type ResultRow } from "../report/rows.js";
import { percentOf, resultTable } from "../report/table.js";
import { tableCaption } from "../report/caption.js";
import type { Candidate } from "../compare/candidates.js";
import type { CaptionedTable, Lab, Outcome, Produced } from "./types.js";

/** A method under a name of its own, with some parameters given. */
export const given = (
  name: string,
  method: string,
  values?: Readonly<Record<string, unknown>>,
): Candidate => ({ name, method: findMethod(method), given: values });
/** A method whose parameters are searched where a paper searches them, not where its own does. */
export const searchedOver = (name: string, method: string, grid: NonNullable<Method["grid"]>): Candidate => ({
  name,
  method: findMethod(method),
  grid,
});
/** λ from 0.1 to 1, as SuperMerge's and DARE's papers search it for every method. */
export const unitLambdas = { lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1] };
/** SuperMerge with some settings changed. */
export const superMergeWith = (name: string, settings: Readonly<Record<string, unknown>>): Candidate => ({
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
  grid?: NonNullable<Method["grid"]>,
): Candidate => ({ name, method: findMethod(method), given: values, grid: { ...grid, dareP: dareRates } });

/** The p that was found for such a method, seed by seed. @throws UserError where none was */
export const rateOf = (outcome: Outcome, name: string, { seeds }: Pick<Lab, "seeds">): number[] =>
  seeds.map((seed) => {
    const { dareP } = outcome.values(name, seed);
    const rate: unknown = Array.isArray(dareP) ? dareP[0] : undefined;
    if (typeof rate !== "number") throw new UserError(`no p of DARE was found for ${name} at seed ${seed}`);
    return rate;
  });

/** Rows of some tasks alone. */
export const onTasks = (rows: readonly ResultRow[], tasks: readonly string[]): ResultRow[] =>
  rows.filter(({ task }) => tasks.includes(task));

/** A table of rows with its caption. */
export const resultsTable = (
  name: string,
  rows: readonly ResultRow[],
  lab: Pick<Lab, "synthetic"> & { readonly valPerTask?: number | undefined },
  note = "",
): CaptionedTable => ({
  name,
  caption: [note, tableCaption(rows, lab.synthetic, lab.valPerTask)].filter(Boolean).join("; "),
  table: resultTable(rows),
});

/** The one seed of what is shown at one alone. @throws UserError where there is none */
export function firstSeed({ seeds }: Pick<Lab, "seeds">): number {
  const [seed] = seeds;
  if (seed === undefined) throw new UserError("--seeds: there is none");
  return seed;
}

/** Every pair of some tasks. */
const pairsOf = (tasks: readonly string[]): [string, string][] =>
  tasks.flatMap((a, i) => tasks.slice(i + 1).map((b): [string, string] => [a, b]));

/** Averages over all pairs. */
function pairAverages(rows: readonly ResultRow[]): CaptionedTable {
  const tasks = distinct(rows.map(({ task }) => task));
  const body = distinct(rows.map(({ method }) => method)).map((method) => [
    method,
    percentOf(averageOf(rows, method, tasks)),
  ]);
  return {
    name: "all-pairs",
    caption: "average accuracy in % over both tasks of every pair, which is what the claims below are about",
    table: { head: ["method", "average"], body },
  };
}

/**
 * Every pair of the experts merged by some candidates: what each came to, a table of the averages over
 * all pairs, one a pair, and rows whose task says in which pair it was.
 */
export async function everyPair(
  lab: Lab,
  candidates: readonly (string | Candidate)[],
): Promise<Produced & { readonly outcomes: readonly Outcome[] }> {
  const tables: CaptionedTable[] = [];
  const rows: ResultRow[] = [];
  const outcomes: Outcome[] = [];
  for (const pair of pairsOf(lab.tasks)) {
    const found = await lab.compare(`pair-${pair.join("+")}`, candidates, { tasks: pair });
    outcomes.push(found);
    tables.push(resultsTable(pair.join("-"), found.rows, lab, `${pair.join(" and ")} merged`));
    rows.push(...found.rows.map((row) => ({ ...row, task: `${row.task} (${pair.join("+")})` })));
  }
  if (outcomes.length > 1) tables.unshift(pairAverages(rows));
  return { rows, tables, figures: [], outcomes };
}
