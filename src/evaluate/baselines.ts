import type { Table } from "../merge/table.js";
import { mergeWeights, type TaskVectors } from "../merge/vectors.js";
import { constantTables, lambdaGrid } from "../methods/constant.js";
import type { Model } from "../models/types.js";
import type { ResultRow } from "../report/rows.js";
import { evaluateTasks, mean, type PreparedTask, type Score } from "./evaluate.js";

/** One point of a search: what was tried, and how it did on validation. */
export interface SearchPoint {
  readonly lambda: number;
  readonly accuracy: number;
  readonly loss: number;
}

export function toRows(method: string, tasks: readonly PreparedTask[], scores: readonly Score[], split: "validation" | "test", seed: number): ResultRow[] {
  return scores.map(({ accuracy, n }, i) => ({ method, task: tasks[i]!.id, split, metric: "accuracy", value: accuracy, n, seed }));
}

async function scoreTable(model: Model, vectors: TaskVectors, table: Table, tasks: readonly PreparedTask[], split: "validation" | "test"): Promise<Score[]> {
  const merged = mergeWeights(vectors, table);
  try {
    return await evaluateTasks(model, merged.weights, tasks, split);
  } finally {
    merged.dispose();
  }
}

/** λ with the best mean validation accuracy; the lower loss decides between equals. */
export async function searchLambda(model: Model, vectors: TaskVectors, tasks: readonly PreparedTask[], onPoint: (done: number, of: number) => void): Promise<SearchPoint[]> {
  const points: SearchPoint[] = [];
  for (const lambda of lambdaGrid) {
    const table = constantTables.taskArithmetic(vectors.layers.length, tasks.length, lambda);
    const scores = await scoreTable(model, vectors, table, tasks, "validation");
    points.push({ lambda, accuracy: mean(scores.map((s) => s.accuracy)), loss: mean(scores.map((s) => s.loss)) });
    onPoint(points.length, lambdaGrid.length);
  }
  return points;
}

export const bestPoint = (points: readonly SearchPoint[]): SearchPoint =>
  points.reduce((best, point) => (point.accuracy > best.accuracy || (point.accuracy === best.accuracy && point.loss < best.loss) ? point : best));

/** Test rows of the methods that train nothing; task arithmetic with the λ that its search found. */
export async function evaluateBaselines(
  model: Model, vectors: TaskVectors, tasks: readonly PreparedTask[], lambda: number, seed: number, progress: (method: string, done: number, of: number) => void,
): Promise<ResultRow[]> {
  const [n, k] = [vectors.layers.length, tasks.length];
  const rows: ResultRow[] = [];
  for (const [i, task] of tasks.entries()) {
    progress("individual", i, k);
    rows.push(...toRows("individual", [task], await scoreTable(model, vectors, constantTables.individual(n, k, i), [task], "test"), "test", seed));
  }
  const tables: [string, Table][] = [
    ["pretrained", constantTables.pretrained(n, k)],
    ["average", constantTables.average(n, k)],
    ["task-arithmetic", constantTables.taskArithmetic(n, k, lambda)],
  ];
  for (const [i, [method, table]] of tables.entries()) {
    progress(method, i, tables.length);
    rows.push(...toRows(method, tasks, await scoreTable(model, vectors, table, tasks, "test"), "test", seed));
  }
  return rows;
}
