export const metrics = ["accuracy", "exact-match"] as const;

/** One measured number. Every table, card and figure is made from a list of these. */
export interface ResultRow {
  readonly method: string;
  readonly task: string;
  readonly split: "validation" | "test";
  readonly metric: (typeof metrics)[number];
  /** A fraction. */
  readonly value: number;
  /** Examples it was measured on. */
  readonly n: number;
  readonly seed: number;
}

/** Rows of one method at one seed on the test split → their mean over seeds, task by task. */
export function meanOverSeeds(rows: readonly ResultRow[], method: string, task: string): { mean: number; sd: number; seeds: number } | undefined {
  const values = rows.filter((row) => row.method === method && row.task === task && row.split === "test").map(({ value }) => value);
  if (values.length === 0) return undefined;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1);
  return { mean, sd: Math.sqrt(variance), seeds: values.length };
}

export const distinct = <T>(items: readonly T[]): T[] => [...new Set(items)];
