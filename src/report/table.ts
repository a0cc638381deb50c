import { averageOf, differenceOf, distinct, isTestAdapted, scoreOf, type ResultRow } from "./rows.js";
import { mean, type Interval } from "./interval.js";

/** A cell's text; the best of its column and the second are marked. */
export type Cell = string | { readonly text: string; readonly mark: "best" | "second" };

export const textOf = (cell: Cell): string => (typeof cell === "string" ? cell : cell.text);

/** A row a method (its name first), a column a measure. */
export interface Table {
  readonly head: readonly string[];
  readonly body: readonly (readonly Cell[])[];
}

/** Not merged but trained on the tasks, one model a task or one of all: shown for reference and not ranked. */
const unranked = new Set(["individual", "multitask", "sub-models, on average"]);

const percent = (value: number): string => (100 * value).toFixed(1);

/** In percent, with its interval where there are several seeds; a dash for what was not measured. */
export const percentOf = (of: Interval | undefined): string =>
  of ? `${percent(of.mean)}${of.count > 1 ? ` ± ${percent(of.half)}` : ""}` : "–";

/** Rank 1 for the highest; equal values, but for the rounding of sums, share the better rank. */
const rank = (value: number, others: readonly number[]): number =>
  1 + others.filter((other) => other > value + 1e-12).length;

/**
 * Each method's rank among the others, task by task, on average over the tasks; of those that were
 * tested on all of them.
 */
export function averageRanks(rows: readonly ResultRow[], tasks: readonly string[]): Map<string, number> {
  const all = distinct(rows.map(({ method }) => method)).filter((method) => !unranked.has(method));
  const columns = tasks.map((task) => all.flatMap((method) => scoreOf(rows, method, task)?.mean ?? []));
  return new Map(
    all.flatMap((method) => {
      const ranks = tasks.flatMap((task, i) => {
        const score = scoreOf(rows, method, task);
        return score ? [rank(score.mean, columns[i]!)] : [];
      });
      return ranks.length === tasks.length ? [[method, mean(ranks)] as const] : [];
    }),
  );
}

/** The best of a column is marked and, of three or more, the second. */
const marked = (text: string, place: number, of: number): Cell =>
  of < 2 || place > Math.min(2, of - 1) ? text : { text, mark: place === 1 ? "best" : "second" };

/**
 * Results as people read them: a row a method, a column a task, accuracy in percent with its rank among the merged
 * models, and the average of both. With several seeds, means with their 95 % intervals, and how far
 * each method's average is behind the best one's, seed by seed. A task that a method was not tested on
 * is a dash.
 */
export function resultTable(rows: readonly ResultRow[]): Table {
  const methods = distinct(rows.map(({ method }) => method));
  const tasks = distinct(rows.map(({ task }) => task));
  const ranked = methods.filter((method) => !unranked.has(method));
  const columns = tasks.map((task) => ({
    task,
    all: ranked.flatMap((method) => scoreOf(rows, method, task)?.mean ?? []),
  }));
  const totals = ranked.flatMap((method) => averageOf(rows, method, tasks)?.mean ?? []);
  const ranks = averageRanks(rows, tasks);
  const best = ranked.find((method) => averageOf(rows, method, tasks)?.mean === Math.max(...totals));
  const paired = best !== undefined && distinct(rows.map(({ seed }) => seed)).length > 1 && ranked.length > 1;

  const body = methods.map((method) => {
    const shown = ranked.includes(method);
    const cells = columns.map(({ task, all }): Cell => {
      const score = scoreOf(rows, method, task);
      if (!score) return "–";
      const text = percentOf(score);
      if (!shown) return text;
      const place = rank(score.mean, all);
      return marked(`${text} (${place})`, place, all.length);
    });
    const average = averageOf(rows, method, tasks);
    const averageText = percentOf(average);
    const behind = shown && paired && method !== best ? differenceOf(rows, method, best, tasks) : undefined;
    return [
      isTestAdapted(method) ? `${method} †` : method,
      shown && average ? marked(averageText, rank(average.mean, totals), totals.length) : averageText,
      ranks.get(method)?.toFixed(1) ?? "–",
      ...(paired ? [percentOf(behind)] : []),
      ...cells,
    ];
  });
  return { head: ["method", "average", "rank", ...(paired ? ["against the best"] : []), ...tasks], body };
}

/** Columns padded to their widest cell, for a terminal: numbers to the right unless `sides` says otherwise. */
export function toText({ head, body }: Table, sides: readonly ("left" | "right")[] = ["left"]): string {
  const lines = [head, ...body].map((line) => line.map(textOf));
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  return lines
    .map((line) =>
      line
        .map((cell, i) => (sides[i] === "left" ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
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
  const seeds = distinct(rows.map(({ seed }) => seed));
  const data = synthetic ? "SYNTHETIC data; " : "";
  const exact = distinct(rows.filter(({ metric }) => metric === "exact-match").map(({ task }) => task));
  const over = seeds.length > 1 ? `s ${seeds.join(", ")}: means ± 95 % intervals` : ` ${seeds.join()}`;
  const adapted = rows.some(({ method }) => isTestAdapted(method))
    ? "; † adapted on the test inputs, without their labels"
    : "";
  const examples = valPerTask === undefined ? "" : `; ${valPerTask} validation examples a task at most`;
  return (
    `${data}test accuracy${exact.length ? ` (${exact.join(", ")}: exact match)` : ""} in % ` +
    `(rank among merged models)${examples}; seed${over}${adapted}`
  );
}
