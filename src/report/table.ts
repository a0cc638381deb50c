import { distinct, meanOverSeeds, type ResultRow } from "./rows.js";

export interface Table {
  readonly head: readonly string[];
  readonly body: readonly (readonly string[])[];
}

/** Not one merged model but one model a task: shown for reference and not ranked. */
const unranked = new Set(["individual"]);

const percent = (value: number): string => (100 * value).toFixed(1);

/** Rank 1 for the highest; equal values share the better rank. */
function rank(value: number, others: readonly number[]): number {
  return 1 + others.filter((other) => other > value).length;
}

/**
 * Results as people read them: a row a method, a column a task, accuracy in percent with its rank among the merged
 * models, and the average of both. With several seeds, means and their standard deviation.
 */
export function resultTable(rows: readonly ResultRow[]): Table {
  const methods = distinct(rows.map(({ method }) => method));
  const tasks = distinct(rows.map(({ task }) => task));
  const cell = (method: string, task: string) => meanOverSeeds(rows, method, task);
  const ranked = methods.filter((method) => !unranked.has(method));
  const rankOf = (method: string, task: string) => rank(cell(method, task)!.mean, ranked.map((other) => cell(other, task)!.mean));
  const average = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const seeds = Math.max(...tasks.map((task) => cell(methods[0]!, task)!.seeds));

  const body = methods.map((method) => {
    const shown = !unranked.has(method);
    const cells = tasks.map((task) => {
      const { mean, sd } = cell(method, task)!;
      const spread = seeds > 1 ? ` ± ${percent(sd)}` : "";
      return `${percent(mean)}${spread}${shown ? ` (${rankOf(method, task)})` : ""}`;
    });
    const meanAccuracy = percent(average(tasks.map((task) => cell(method, task)!.mean)));
    const meanRank = shown ? average(tasks.map((task) => rankOf(method, task))).toFixed(1) : "–";
    return [method, meanAccuracy, meanRank, ...cells];
  });
  return { head: ["method", "average", "rank", ...tasks], body };
}

/** Columns padded to their widest cell, for a terminal: numbers to the right unless `sides` says otherwise. */
export function toText({ head, body }: Table, sides: readonly ("left" | "right")[] = ["left"]): string {
  const lines = [head, ...body];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  return lines.map((line) => line.map((cell, i) => (sides[i] === "left" ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ").trimEnd()).join("\n");
}

export function toMarkdown({ head, body }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, i) => (i === 0 ? "---" : "---:"))), ...body.map(line)].join("\n");
}

/** What the table's numbers mean, in one line that stands above it. */
export function tableCaption(rows: readonly ResultRow[], synthetic: boolean, valPerTask: number): string {
  const seeds = distinct(rows.map(({ seed }) => seed));
  const data = synthetic ? "SYNTHETIC data; " : "";
  const exact = distinct(rows.filter(({ metric }) => metric === "exact-match").map(({ task }) => task));
  return `${data}test accuracy${exact.length ? ` (${exact.join(", ")}: exact match)` : ""} in % (rank among merged models); ${valPerTask} validation examples a task at most; seed${seeds.length > 1 ? "s" : ""} ${seeds.join(", ")}`;
}
