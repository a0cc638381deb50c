import { averageOf, distinct, testScore, type ResultRow } from "./rows.js";
import type { Interval } from "./interval.js";
import type { Cell, TextTable } from "./table.js";

/** The best in bold, the second underlined. */
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
