/** What every method answered to every test example, as it is kept beside a report: rows.csv.gz. */
import { gunzipSync, gzipSync } from "node:zlib";
import { parse } from "csv-parse/sync";
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

/** A line of the table, every field a text. */
const keptRow = z.object({
  method: z.string(),
  task: z.string(),
  metric: z.string(),
  value: z.coerce.number(),
  n: z.coerce.number(),
  seed: z.coerce.number(),
  right: z.string(),
});

/** Rows that were kept. @throws Error where they are damaged */
export function unpackRows(bytes: Uint8Array): ResultRow[] {
  const lines: unknown[] = parse(gunzipSync(bytes), { columns: true });
  return lines.map((line) => {
    const { right, ...row } = keptRow.parse(line);
    return resultRow.parse({ ...row, split: "test", ...(right !== "" && { right }) });
  });
}
