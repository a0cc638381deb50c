import { at } from "../at.js";
import { type Table, constantTables, lambdaGrid } from "../merge/table.js";
import { mean, type ResultRow } from "../report/rows.js";
import { evaluateTasks, type PreparedTask, type TaskScore } from "./evaluate.js";
import type { Merge } from "./merge.js";

/** How something that was tried did on the validation examples. */
export interface Tried {
  readonly accuracy: number;
  readonly loss: number;
}

/** One point of the search of λ. */
export interface SearchPoint extends Tried {
  readonly lambda: number;
}

/** Rows of a method's test scores. */
export function toRows(
  method: string,
  tasks: readonly PreparedTask[],
  scores: readonly TaskScore[],
  seed: number,
): ResultRow[] {
  return tasks.map(({ id, metrics: [metric = "accuracy", ...others] }, i) => {
    const { accuracy, metrics, n, right } = at(scores, i);
    const also = Object.fromEntries(others.map((name) => [name, metrics[name] ?? NaN]));
    return {
      method,
      task: id,
      split: "test",
      metric,
      value: accuracy,
      ...(others.length > 0 && { also }),
      n,
      seed,
      ...(metric === "accuracy" && right !== undefined && { right }),
    };
  });
}

/** A merge but for its table. */
export type MergeContext = Omit<Merge, "table">;

const tableSize = ({ vectors }: MergeContext): [layers: number, experts: number] => [
  vectors.layers.length,
  vectors.experts.length,
];

/** The column of a task's expert. A column that is a merge itself is called after its tasks: "rte+cb". */
export const expertOf = ({ vectors }: MergeContext, { id }: PreparedTask): number =>
  vectors.experts.findIndex((label) => label === id || label.split("+").includes(id));

/** λ with the best mean validation accuracy; the lower loss decides between equals. */
export async function searchLambda(
  place: MergeContext,
  tasks: readonly PreparedTask[],
  onPoint: (done: number, of: number) => void,
): Promise<SearchPoint[]> {
  const points: SearchPoint[] = [];
  for (const lambda of lambdaGrid) {
    const table = constantTables.taskArithmetic(...tableSize(place), lambda);
    const scores = await evaluateTasks({ ...place, table }, tasks, "validation");
    points.push({
      lambda,
      accuracy: mean(scores.map((s) => s.accuracy)),
      loss: mean(scores.map((s) => s.loss)),
    });
    onPoint(points.length, lambdaGrid.length);
  }
  return points;
}

const isBetter = (a: Tried, b: Tried): boolean =>
  a.accuracy > b.accuracy || (a.accuracy === b.accuracy && a.loss < b.loss);

/** The higher accuracy; between equals the lower loss, then the earlier. */
export const bestPoint = <Point extends Tried>(points: readonly Point[]): Point =>
  points.reduce((best, point) => (isBetter(point, best) ? point : best));

/** How baselines are measured. */
export interface BaselineOptions {
  readonly seed: number;
  progress(method: string, done: number, of: number): void;
}

/** Test rows of every task's own expert. */
async function individualRows(
  place: MergeContext,
  tasks: readonly PreparedTask[],
  { seed, progress }: BaselineOptions,
): Promise<ResultRow[]> {
  const [n, k] = tableSize(place);
  const rows: ResultRow[] = [];
  for (const [i, task] of tasks.entries()) {
    progress("individual", i, k);
    const table = constantTables.individual(n, k, expertOf(place, task));
    const scores = await evaluateTasks({ ...place, table }, [task], "test");
    rows.push(...toRows("individual", [task], scores, seed));
  }
  return rows;
}

/** Test rows of methods, each of which is a table. */
async function namedTableRows(
  place: MergeContext,
  tasks: readonly PreparedTask[],
  tables: Readonly<Record<string, Table>>,
  { seed, progress }: BaselineOptions,
): Promise<ResultRow[]> {
  const named = Object.entries(tables);
  const rows: ResultRow[] = [];
  for (const [i, [method, table]] of named.entries()) {
    progress(method, i, named.length);
    rows.push(...toRows(method, tasks, await evaluateTasks({ ...place, table }, tasks, "test"), seed));
  }
  return rows;
}

/** Test rows of what is no merge: every expert on its own task, and the base. */
export async function evaluateReferences(
  place: MergeContext,
  tasks: readonly PreparedTask[],
  options: BaselineOptions,
): Promise<ResultRow[]> {
  const pretrained = constantTables.pretrained(...tableSize(place));
  return [
    ...(await individualRows(place, tasks, options)),
    ...(await namedTableRows(place, tasks, { pretrained }, options)),
  ];
}

/** Test rows of the methods that train nothing; task arithmetic with the λ that its search found. */
export async function evaluateBaselines(
  place: MergeContext,
  tasks: readonly PreparedTask[],
  lambda: number,
  options: BaselineOptions,
): Promise<ResultRow[]> {
  const size = tableSize(place);
  const tables = {
    pretrained: constantTables.pretrained(...size),
    average: constantTables.average(...size),
    "task-arithmetic": constantTables.taskArithmetic(...size, lambda),
  };
  return [
    ...(await individualRows(place, tasks, options)),
    ...(await namedTableRows(place, tasks, tables, options)),
  ];
}
