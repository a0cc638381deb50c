import { expect } from "vitest";
import { batchLogits } from "../../src/evaluate/evaluate.js";
import { applyGate, makeTable, throughGate, type Table } from "../../src/merge/table.js";
import type { TaskVectors } from "../../src/merge/vectors.js";
import type { Head } from "../../src/models/layers.js";
import type { Model } from "../../src/models/types.js";
import type { Batch } from "../../src/tasks/batches.js";
import { coefficientGradient } from "../../src/train/step.js";
import { relativeError } from "../helpers.js";
import { flat, goldenTable } from "./load.js";

/** What a reference made of two experts and of a merge of both under goldenTable through tanh. */
export interface GoldenMerge {
  rows: { ids: number[]; targets?: number[] }[];
  choices: number | null;
  labels: number[];
  layers: string[];
  logits: number[][];
  individual: number[][][];
  loss: number;
  gradient: number[][];
}

/**
 * Compares two experts and their merge with the reference: logits, loss and ∂L/∂w.
 * @param order which of the reference's rows each layer is
 * @param ways whole (false), or a block at a time (true)
 */
export async function expectMerge(
  g: GoldenMerge,
  model: Model,
  vectors: TaskVectors,
  heads: readonly (Head | undefined)[],
  batch: Batch,
  order: readonly number[],
  ways: readonly boolean[],
  tolerance: number,
): Promise<void> {
  const scores = async (table: Table, which: number, blockwise = false) => {
    for await (const { values } of batchLogits({ model, vectors, table, blockwise }, [
      { head: heads[which], batch },
    ]))
      return values;
    throw new Error("no batch came back");
  };
  for (const which of [0, 1])
    expect(
      relativeError(
        await scores(
          makeTable(order.length, 2, (_, c) => (c === which ? 1 : 0)),
          which,
        ),
        flat(g.individual[which]),
      ),
    ).toBeLessThan(tolerance);
  const reference = goldenTable(g.layers.length, 2);
  const raw: Table = {
    rows: order.length,
    columns: 2,
    values: Float64Array.from(order.flatMap((row) => [...reference.values.subarray(2 * row, 2 * row + 2)])),
  };
  const gated = applyGate(raw, "tanh");
  for (const blockwise of ways) {
    expect(relativeError(await scores(gated, 0, blockwise), flat(g.logits))).toBeLessThan(tolerance);
    const { gradient, losses } = await coefficientGradient(
      { model, vectors, table: gated, blockwise },
      [{ head: heads[0], batch, weight: 1 }],
      "cross-entropy",
    );
    expect(Math.abs(losses[0]! - g.loss) / g.loss).toBeLessThan(tolerance);
    expect(
      relativeError(
        throughGate(gradient, raw, "tanh").values,
        order.flatMap((row) => g.gradient[row]!),
      ),
    ).toBeLessThan(tolerance);
  }
}
