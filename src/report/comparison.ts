import { at } from "../at.js";
import { mean, distinct, type ResultRow } from "./rows.js";
import { resultTable, type TextTable } from "./table.js";

/** What of the data a method saw before it was tested. */
export type Seen = "nothing" | "labels, to search" | "inputs" | "labels" | "test inputs";

/** How long a method took: all of it, its search too, and the merge (or the training) alone; and what it saw. */
export interface Timed {
  readonly method: string;
  readonly total: number;
  readonly merge: number;
  readonly seen?: Seen | undefined;
}

const seconds = (values: readonly number[]): string => {
  if (values.length === 0) return "–";
  const taken = mean(values);
  return taken.toFixed(taken < 9.95 ? 1 : 0);
};

/** A result table with what each method saw, and the seconds that it took (means over seeds). */
export function comparisonTable(rows: readonly ResultRow[], times: readonly Timed[]): TextTable {
  const { head, body } = resultTable(rows);
  const methods = distinct(rows.map(({ method }) => method));
  const of = (method: string, what: "merge" | "total") =>
    seconds(times.filter((time) => time.method === method).map((time) => time[what]));
  const seen = (method: string) => times.find((time) => time.method === method)?.seen ?? "–";
  return {
    head: [...head, "data seen", "merge, s", "with its search, s"],
    body: body.map((line, i) => {
      const method = at(methods, i);
      return [...line, seen(method), of(method, "merge"), of(method, "total")];
    }),
  };
}
