import type { Table } from "../merge/table.js";
import { constantTables, lambdaGrid } from "../methods/constant.js";
import { mean } from "../report/interval.js";
import type { ResultRow } from "../report/rows.js";
import { evaluateTasks, type PreparedTask, type Score } from "./evaluate.js";
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

export function toRows(
  method: string,
  tasks: readonly PreparedTask[],
  scores: readonly Score[],
  split: "validation" | "test",
  seed: number,
): ResultRow[] {
  return scores.map(({ accuracy, n }, i) => ({
    method,
    task: tasks[i]!.id,
    split,
    metric: tasks[i]!.kind === "generate" ? "exact-match" : "accuracy",
    value: accuracy,
    n,
    seed,
  }));
}

/** A merge but for its table. */
export type MergeContext = Omit<Merge, "table">;

const sizeOf = ({ vectors }: MergeContext): [layers: number, experts: number] => [
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
    const table = constantTables.taskArithmetic(...sizeOf(place), lambda);
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

/** The higher accuracy; between equals the lower loss, then the earlier. */
export const bestPoint = <Point extends Tried>(points: readonly Point[]): Point =>
  points.reduce((best, point) =>
    point.accuracy > best.accuracy || (point.accuracy === best.accuracy && point.loss < best.loss)
      ? point
      : best,
  );

/** Test rows of the methods that train nothing; task arithmetic with the λ that its search found. */
export async function evaluateBaselines(
  place: MergeContext,
  tasks: readonly PreparedTask[],
  lambda: number,
  seed: number,
  progress: (method: string, done: number, of: number) => void,
): Promise<ResultRow[]> {
  const [n, k] = sizeOf(place);
  const rows: ResultRow[] = [];
  for (const [i, task] of tasks.entries()) {
    progress("individual", i, k);
    const table = constantTables.individual(n, k, expertOf(place, task));
    rows.push(
      ...toRows("individual", [task], await evaluateTasks({ ...place, table }, [task], "test"), "test", seed),
    );
  }
  const tables: [string, Table][] = [
    ["pretrained", constantTables.pretrained(n, k)],
    ["average", constantTables.average(n, k)],
    ["task-arithmetic", constantTables.taskArithmetic(n, k, lambda)],
  ];
  for (const [i, [method, table]] of tables.entries()) {
    progress(method, i, tables.length);
    rows.push(
      ...toRows(method, tasks, await evaluateTasks({ ...place, table }, tasks, "test"), "test", seed),
    );
  }
  return rows;
}
