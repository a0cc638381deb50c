import {
  averageOf,
  distinct,
  testScore,
  differenceOf,
  isTestAdapted,
  mean,
  type ResultRow,
  type Interval,
} from "./rows.js";
import { at } from "../at.js";
import { metricOf, metricTitle, percent, textIf } from "./caption.js";
import { safeLine } from "../errors.js";

/** A cell's text; the best of its column and the second are marked. */
export type Cell = string | { readonly text: string; readonly mark: "best" | "second" };

export const textOf = (cell: Cell): string => (typeof cell === "string" ? cell : cell.text);

/** A row a method (its name first), a column a measure. */
export interface TextTable {
  readonly head: readonly string[];
  readonly body: readonly (readonly Cell[])[];
}

/** Not merged but trained on the tasks, one model a task or one of all: shown for reference and not ranked. */
const unranked = new Set(["individual", "multitask", "sub-models, on average"]);

/** In percent, with its interval where there are several seeds; a dash for what was not measured. */
export function percentOf(of: Interval | undefined): string {
  if (!of) return "–";
  return percent(of.mean) + textIf(of.count > 1, ` ± ${percent(of.half)}`);
}

/** Rank 1 for the highest; equal values, but for the rounding of sums, share the better rank. */
const rank = (value: number, others: readonly number[]): number =>
  1 + others.filter((other) => other > value + 1e-12).length;

/** Scores of merged models on a task. */
interface RankedColumn {
  readonly task: string;
  readonly scores: readonly number[];
}

const rankedColumns = (
  rows: readonly ResultRow[],
  tasks: readonly string[],
  ranked: readonly string[],
): RankedColumn[] =>
  tasks.map((task) => ({
    task,
    scores: ranked.flatMap((method) => testScore(rows, method, task)?.mean ?? []),
  }));

const methodsOf = (rows: readonly ResultRow[]): string[] => distinct(rows.map(({ method }) => method));
const isRanked = (method: string): boolean => !unranked.has(method);

/**
 * Each method's rank among the others, task by task, on average over the tasks; of those that were
 * tested on all of them.
 */
export function averageRanks(rows: readonly ResultRow[], tasks: readonly string[]): Map<string, number> {
  const ranked = methodsOf(rows).filter(isRanked);
  const columns = rankedColumns(rows, tasks, ranked);
  const found = new Map<string, number>();
  for (const method of ranked) {
    const ranks = columns.flatMap(({ task, scores }) => {
      const score = testScore(rows, method, task);
      return score ? rank(score.mean, scores) : [];
    });
    if (ranks.length === tasks.length) found.set(method, mean(ranks));
  }
  return found;
}

/** The best of a column is marked and, of three or more, the second. */
function markedCell(text: string, place: number, of: number): Cell {
  if (of < 2 || place > Math.min(2, of - 1)) return text;
  return { text, mark: place === 1 ? "best" : "second" };
}

/** A method's score on a task, with its rank where it has one. */
function scoreCell(rows: readonly ResultRow[], method: string, { task, scores }: RankedColumn): Cell {
  const score = testScore(rows, method, task);
  if (!score || !isRanked(method)) return percentOf(score);
  const place = rank(score.mean, scores);
  return markedCell(`${percentOf(score)} (${place})`, place, scores.length);
}

/** A method's average over the tasks. @param totals those of merged models */
function averageCell(method: string, average: Interval | undefined, totals: readonly number[]): Cell {
  if (!average || !isRanked(method)) return percentOf(average);
  return markedCell(percentOf(average), rank(average.mean, totals), totals.length);
}

/**
 * Results as people read them: a row a method, a column a task, accuracy in percent with its rank among the merged
 * models, and the average of both. With several seeds, means with their 95 % intervals, and how far
 * each method's average is behind the best one's, seed by seed. A task that a method was not tested on
 * is a dash.
 */
export function resultTable(rows: readonly ResultRow[]): TextTable {
  const methods = methodsOf(rows);
  const ranked = methods.filter(isRanked);
  const tasks = distinct(rows.map(({ task }) => task));
  const columns = rankedColumns(rows, tasks, ranked);
  const totals = ranked.flatMap((method) => averageOf(rows, method, tasks)?.mean ?? []);
  const ranks = averageRanks(rows, tasks);
  const best = ranked.find((method) => averageOf(rows, method, tasks)?.mean === Math.max(...totals));
  const paired = best !== undefined && distinct(rows.map(({ seed }) => seed)).length > 1 && ranked.length > 1;

  const body = methods.map((method) => {
    const behind: Cell[] = [];
    if (paired) {
      const compared = isRanked(method) && method !== best;
      behind.push(percentOf(compared ? differenceOf(rows, method, best, tasks) : undefined));
    }
    return [
      method + textIf(isTestAdapted(method), " †"),
      averageCell(method, averageOf(rows, method, tasks), totals),
      ranks.get(method)?.toFixed(1) ?? "–",
      ...behind,
      ...columns.map((column) => scoreCell(rows, method, column)),
    ];
  });
  const against = paired ? ["against the best"] : [];
  const heads = tasks.map(
    (task) => task + textIf(metricOf(rows, task) !== "accuracy", `, ${metricTitle(rows, task)}`),
  );
  return { head: ["method", "average", "rank", ...against, ...heads], body };
}

/** Columns padded to their widest cell, for a terminal: numbers to the right unless `sides` says otherwise. */
export function toText({ head, body }: TextTable, sides: readonly ("left" | "right")[] = ["left"]): string {
  const lines = [head, ...body].map((line) => line.map(textOf));
  const widths = head.map((_, column) => Math.max(...lines.map((line) => at(line, column).length)));
  const padded = (cell: string, column: number) => {
    const width = at(widths, column);
    return sides[column] === "left" ? cell.padEnd(width) : cell.padStart(width);
  };
  return lines.map((line) => line.map(padded).join("  ").trimEnd()).join("\n");
}

/** The best in bold, the second underlined. */
/** A text within a line or a cell of Markdown: names are anybody's. */
export const escapeMarkdown = (text: string): string => safeLine(text, 2000).replace(/[|<>`]/g, "\\$&");

export function toMarkdown({ head, body }: TextTable): string {
  const marks = { best: (text: string) => `**${text}**`, second: (text: string) => `<ins>${text}</ins>` };
  const shown = (cell: Cell) => (typeof cell === "string" ? cell : marks[cell.mark](cell.text));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [
    line(head),
    line(["---", ...head.slice(1).map(() => "---:")]),
    ...body.map((cells) => line(cells.map(shown))),
  ].join("\n");
}

const latexNames: Record<string, string> = {
  "\\": "\\textbackslash{}",
  "~": "\\textasciitilde{}",
  "^": "\\textasciicircum{}",
  "±": "$\\pm$",
  "–": "--",
  "−": "$-$",
  "†": "$^\\dagger$",
  λ: "$\\lambda$",
  "×": "$\\times$",
};
const latexText = (text: string): string =>
  text.replaceAll(/[\\~^±–−†λ×]|[&%$#_{}]/g, (sign) => latexNames[sign] ?? `\\${sign}`);

/** A tabular of LaTeX, for the package booktabs. */
export function toLatex({ head, body }: TextTable): string {
  const marks = { best: "textbf", second: "underline" };
  const shown = (cell: Cell) => {
    if (typeof cell === "string") return latexText(cell);
    return `\\${marks[cell.mark]}{${latexText(cell.text)}}`;
  };
  const line = (cells: readonly string[]) => `${cells.join(" & ")} \\\\`;
  return [
    "% \\usepackage{booktabs}",
    `\\begin{tabular}{l${"r".repeat(head.length - 1)}}`,
    "\\toprule",
    line(head.map(latexText)),
    "\\midrule",
    ...body.map((cells) => line(cells.map(shown))),
    "\\bottomrule",
    "\\end{tabular}",
  ].join("\n");
}

/** JSON that stands in a script and has no character in it that HTML looks at. */
export const inertJson = (value: unknown): string => JSON.stringify(value).replaceAll("<", "\\u003c");

export const escapeHtml = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

export function toHtml({ head, body }: TextTable): string {
  const tags = { best: "strong", second: "u" };
  const shown = (cell: Cell) => {
    if (typeof cell === "string") return escapeHtml(cell);
    const tag = tags[cell.mark];
    return `<${tag}>${escapeHtml(cell.text)}</${tag}>`;
  };
  const line = (cells: readonly string[], tag: "th" | "td") =>
    `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join("")}</tr>`;
  const rows = body.map((cells) => line(cells.map(shown), "td")).join("\n");
  return `<table>\n<thead>${line(head.map(escapeHtml), "th")}</thead>\n<tbody>\n${rows}\n</tbody>\n</table>`;
}

function csvCell(value: string | number): string {
  const text = String(value);
  if (!/[",\n]/.test(text)) return text;
  return `"${text.replaceAll('"', '""')}"`;
}

/** A line of numbers, for programs. */
export const csvLine = (cells: readonly (string | number)[]): string => cells.map(csvCell).join(",");

/** A method's score on a task as cells: its mean, and the ends of its interval. */
const scoreCells = ({ mean, half, count }: Interval): number[] => [
  ...[mean, mean - half, mean + half].map((value) => Number(value.toFixed(10))),
  count,
];

/**
 * Every score as a number, a line a method and task, the average last: for programs. @param more what
 * every line says besides
 */
export function toCsv(rows: readonly ResultRow[], more: Readonly<Record<string, string>> = {}): string {
  const tasks = distinct(rows.map(({ task }) => task));
  const lines: string[] = [];
  const addLine = (method: string, task: string, score: Interval | undefined, row?: ResultRow) => {
    if (!score) return;
    const cells = [row?.metric ?? "", ...scoreCells(score), row?.n ?? ""];
    lines.push(csvLine([method, task, ...cells, ...Object.values(more)]));
  };
  for (const method of distinct(rows.map((row) => row.method))) {
    for (const task of tasks) {
      const measured = rows.find((row) => row.method === method && row.task === task);
      addLine(method, task, testScore(rows, method, task), measured);
    }
    addLine(method, "average", averageOf(rows, method, tasks));
  }
  return [
    csvLine(["method", "task", "metric", "value", "low", "high", "seeds", "examples", ...Object.keys(more)]),
    ...lines,
  ].join("\n");
}
