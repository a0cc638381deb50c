/** What every method answered to every test example, as it is kept beside a report: rows.csv.gz. */
import { gunzipSync, gzipSync } from "node:zlib";
import { z } from "zod";
import { resultRow, type ResultRow } from "../report/rows.js";
import { csvLine } from "../report/table.js";

export const rowsFile = "rows.csv.gz";
const columns = ["method", "task", "metric", "value", "n", "seed", "right"] as const;

/** Test rows as gzip of csv: the same bytes for the same rows. */
export function packRows(rows: readonly ResultRow[]): Uint8Array {
  const lines = rows
    .filter(({ split }) => split === "test")
    .map((row) => csvLine(columns.map((name) => String(row[name] ?? ""))));
  return gzipSync(`${[csvLine([...columns]), ...lines].join("\n")}\n`, { level: 9 });
}

/** A line of what {@link packRows} writes: a field may stand in quotation marks. */
const fieldsOf = (line: string): string[] =>
  [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g)]
    .slice(0, columns.length)
    .map(([, field = ""]) => (field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field));

/** Rows that were kept. @throws ZodError where they are damaged */
export function unpackRows(bytes: Uint8Array): ResultRow[] {
  const [, ...lines] = gunzipSync(bytes).toString("utf8").trimEnd().split("\n");
  return lines.map((line) => {
    const [method, task, metric, value, n, seed, right = ""] = fieldsOf(line);
    const numbers = z.array(z.coerce.number()).parse([value, n, seed]);
    const [score, count, drawn] = numbers;
    const row = { method, task, split: "test", metric, value: score, n: count, seed: drawn };
    return resultRow.parse(right === "" ? row : { ...row, right });
  });
}
