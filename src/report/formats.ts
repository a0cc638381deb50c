import { averageOf, distinct, scoreOf, type ResultRow } from "./rows.js";
import type { Cell, Table } from "./table.js";

/** The best in bold, the second underlined. */
export function toMarkdown({ head, body }: Table): string {
  const shown = (cell: Cell) => {
    if (typeof cell === "string") return cell;
    return cell.mark === "best" ? `**${cell.text}**` : `<ins>${cell.text}</ins>`;
  };
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [
    line(head),
    line(head.map((_, i) => (i === 0 ? "---" : "---:"))),
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
export function toLatex({ head, body }: Table): string {
  const shown = (cell: Cell) =>
    typeof cell === "string"
      ? latexText(cell)
      : `\\${cell.mark === "best" ? "textbf" : "underline"}{${latexText(cell.text)}}`;
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

export function toHtml({ head, body }: Table): string {
  const shown = (cell: Cell) => {
    if (typeof cell === "string") return escapeHtml(cell);
    const tag = cell.mark === "best" ? "strong" : "u";
    return `<${tag}>${escapeHtml(cell.text)}</${tag}>`;
  };
  const line = (cells: readonly string[], tag: "th" | "td") =>
    `<tr>${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join("")}</tr>`;
  const rows = body.map((cells) => line(cells.map(shown), "td")).join("\n");
  return `<table>\n<thead>${line(head.map(escapeHtml), "th")}</thead>\n<tbody>\n${rows}\n</tbody>\n</table>`;
}

const quoted = (text: string | number): string =>
  /[",\n]/.test(String(text)) ? `"${String(text).replaceAll('"', '""')}"` : String(text);

/** A line of numbers, for programs. */
export const csvLine = (cells: readonly (string | number)[]): string => cells.map(quoted).join(",");

/**
 * Every score as a number, a line a method and task, the average last: for programs. @param more what
 * every line says besides
 */
export function toCsv(rows: readonly ResultRow[], more: Readonly<Record<string, string>> = {}): string {
  const tasks = distinct(rows.map(({ task }) => task));
  const lines = distinct(rows.map(({ method }) => method)).flatMap((method) =>
    [...tasks, "average"].flatMap((task) => {
      const score = task === "average" ? averageOf(rows, method, tasks) : scoreOf(rows, method, task);
      const found = rows.find((row) => row.method === method && row.task === task);
      return score
        ? [
            csvLine([
              method,
              task,
              found?.metric ?? "",
              ...[score.mean, score.mean - score.half, score.mean + score.half].map((value) =>
                Number(value.toFixed(10)),
              ),
              score.count,
              found?.n ?? "",
              ...Object.values(more),
            ]),
          ]
        : [];
    }),
  );
  return [
    csvLine(["method", "task", "metric", "value", "low", "high", "seeds", "examples", ...Object.keys(more)]),
    ...lines,
  ].join("\n");
}
