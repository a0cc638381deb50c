import type { TokenRow } from "../src/models/types.js";
import { toBatch, type AnswerKind, type Batch, type EncodedExample } from "../src/tasks/batches.js";

type PlainKind = Extract<AnswerKind, "classify" | "choose" | "regress" | "generate">;

/** A batch of rows that were made by hand, a label an example; of a choice, as many rows an example as there are. */
export function rowsBatch(kind: PlainKind, rows: readonly TokenRow[], labels: readonly number[]): Batch {
  const each = rows.length / Math.max(1, labels.length);
  const examples = labels.map((label, i): EncodedExample => {
    const own = rows.slice(i * each, (i + 1) * each);
    const plain = { rows: own, label, length: Math.max(...own.map(({ ids }) => ids.length)) };
    return kind === "generate" ? { ...plain, kind, answers: [] } : { ...plain, kind };
  });
  return { kind, examples, rows };
}

/** Labels of each of some batches. */
export const labelsOfEach = (batches: readonly Batch[]): number[][] =>
  batches.map(({ examples }) => examples.map(({ label }) => label));

/** The first examples of a batch. */
export const firstOf = ({ examples }: Batch, count: number): Batch => toBatch(examples.slice(0, count));
