/** What a table's numbers are: metrics, seeds, further metrics. */
import { distinct, isTestAdapted, type ResultRow } from "./rows.js";

/** A fraction in percent, without the sign. */
export const percent = (value: number): string => (100 * value).toFixed(1);

/** A text that stands where something is so. */
export const textIf = (condition: boolean, text: string): string => (condition ? text : "");

const metricTitles: Readonly<Record<string, string>> = {
  "exact-match": "exact match",
  f1: "F1",
  "f1-macro": "macro F1",
  "f1-micro": "micro F1",
  matthews: "Matthews",
  pearson: "Pearson",
  spearman: "Spearman",
  "entity-f1": "entity F1",
  "span-f1": "span F1",
  rouge1: "ROUGE-1",
  rouge2: "ROUGE-2",
  rougeL: "ROUGE-L",
  "ndcg@10": "nDCG@10",
  "mrr@10": "MRR@10",
};

/** What people call a metric. */
export const titleOfMetric = (name: string): string => metricTitles[name] ?? name;

/** What a task is measured by. */
export const metricOf = (rows: readonly ResultRow[], task: string): string =>
  rows.find((row) => row.task === task)?.metric ?? "accuracy";
export const metricTitle = (rows: readonly ResultRow[], task: string): string =>
  titleOfMetric(metricOf(rows, task));

/** The further metrics of methods, a line a task and method; none where there are none. */
export function furtherMetrics(rows: readonly ResultRow[]): string[] {
  return rows.flatMap(({ method, task, also }) => {
    if (!also) return [];
    const each = Object.entries(also).map(([name, value]) => `${titleOfMetric(name)} ${percent(value)}`);
    return [`${task}, ${method}: ${each.join(", ")}`];
  });
}

/** Which seeds, and that the numbers are means where there are several. */
function seedsText(rows: readonly ResultRow[]): string {
  const seeds = distinct(rows.map(({ seed }) => seed));
  if (seeds.length > 1) return `seeds ${seeds.join(", ")}: means ± 95 % intervals`;
  return `seed ${seeds.join()}`;
}

/** What the scores of rows are, in percent. */
export function scoresText(rows: readonly ResultRow[], synthetic: boolean): string {
  const tasks = distinct(rows.map(({ task }) => task));
  const others = tasks.filter((task) => metricOf(rows, task) !== "accuracy");
  const named = others.map((task) => `${task}: ${metricTitle(rows, task)}`).join(", ");
  const isAccuracy = others.length < tasks.length || tasks.length === 0;
  return (
    textIf(synthetic, "SYNTHETIC data; ") +
    `test ${isAccuracy ? "accuracy" : "scores"}${textIf(named !== "", ` (${named})`)} in %`
  );
}

/**
 * What the table's numbers mean, in one line that stands above it. @param valPerTask undefined where
 * rows differ in it, and say so
 */
export function tableCaption(
  rows: readonly ResultRow[],
  synthetic: boolean,
  valPerTask: number | undefined,
): string {
  const isAdapted = rows.some(({ method }) => isTestAdapted(method));
  return (
    `${scoresText(rows, synthetic)} (rank among merged models)` +
    textIf(valPerTask !== undefined, `; ${valPerTask} validation examples a task at most`) +
    `; ${seedsText(rows)}` +
    textIf(isAdapted, "; † adapted on the test inputs, without their labels")
  );
}

/** A time that is left: "12 s", "3 min 05 s". */
export function timeText(seconds: number): string {
  const rounded = Math.max(0, Math.round(seconds));
  if (rounded < 60) return `${rounded} s`;
  return `${Math.floor(rounded / 60)} min ${String(rounded % 60).padStart(2, "0")} s`;
}
