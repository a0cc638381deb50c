import { join } from "node:path";
import { eye, slice, tidy, zeros } from "@tensorflow/tfjs-core";
import { expect, test } from "vitest";
import { batchLogits } from "../../src/evaluate/evaluate.js";
import { applyGate, makeTable, throughGate, type Table } from "../../src/merge/table.js";
import { readExamples } from "../../src/tasks/files.js";
import { loadTasks } from "../../src/tasks/registry.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import { coefficientGradient } from "../../src/train/step.js";
import { relativeError } from "../helpers.js";
import type { Head } from "../../src/models/layers.js";
import { flat, goldenTable, toBatch, type GoldenBatch, type Loaded } from "./load.js";

/** A whole family: ids, logits, loss and gradient against transformers and PyTorch. */
export function familyTests(where: () => Loaded, dataFolder: string, tolerance: number): void {
  async function scoresOf(table: Table, head: Head, g: GoldenBatch): Promise<Float32Array> {
    const { model, vectors } = where();
    for await (const { values } of batchLogits({ model, vectors, table }, [{ head, batch: toBatch(g) }]))
      return values;
    throw new Error("no batch came back");
  }

  test("texts become the ids transformers makes of them", async () => {
    const { golden: data, folder } = where();
    const encoder = await loadTokenizer(join(folder, "base"), data.maxLength);
    const tasks = await loadTasks(dataFolder);
    for (const g of data.batches) {
      const examples = await readExamples(join(dataFolder, g.task, "validation.jsonl"), tasks.get(g.task)!);
      const encoded = examples
        .slice(0, g.labels.length)
        .flatMap(({ texts }) => texts.map((text) => encoder.encode(text)));
      expect(encoded.map(({ ids }) => ids)).toEqual(g.ids.map((row, i) => row.slice(0, g.lengths[i])));
      expect(encoded.map(({ types }) => types)).toEqual(g.types.map((row, i) => row.slice(0, g.lengths[i])));
    }
  });

  test("the same tensors are changed by the experts", () => {
    expect(
      where()
        .vectors.layers.map(({ id }) => id)
        .sort(),
    ).toEqual([...where().golden.layers].sort());
  });

  test("zero coefficients give the base's features, coefficient 1 the expert's logits", async () => {
    const { model, vectors, heads, golden: data } = where();
    const [n, k] = [vectors.layers.length, data.tasks.length];
    // A head that shows the first eight features as they are.
    const window: Head = { weight: tidy(() => slice(eye(model.width), [0, 0], [8, -1])), bias: zeros([8]) };
    for (const [i, g] of data.batches.entries()) {
      expect(
        relativeError(
          await scoresOf(
            makeTable(n, k, () => 0),
            window,
            { ...g, choices: null },
          ),
          flat(g.base),
        ),
      ).toBeLessThan(tolerance);
      expect(
        relativeError(
          await scoresOf(
            makeTable(n, k, (_, c) => (c === i ? 1 : 0)),
            heads[i]!,
            g,
          ),
          flat(g.individual),
        ),
      ).toBeLessThan(tolerance);
    }
    window.weight.dispose();
    window.bias!.dispose();
  });

  test("merged logits, loss and ∂L/∂w equal PyTorch's for one batch of each task", async () => {
    const { model, vectors, heads, golden: data } = where();
    const k = data.tasks.length;
    const rowByName = new Map(data.layers.map((name, row) => [name, row]));
    // Rows are compared by name: the two sides list the layers in different orders.
    const order = vectors.layers.map(({ id }) => rowByName.get(id)!);
    const reference = goldenTable(order.length, k);
    const raw: Table = {
      ...reference,
      values: Float64Array.from(
        order.flatMap((row) => [...reference.values.subarray(row * k, (row + 1) * k)]),
      ),
    };
    const gated = applyGate(raw, "tanh");
    for (const [i, g] of data.batches.entries()) {
      expect(relativeError(await scoresOf(gated, heads[i]!, g), flat(g.logits))).toBeLessThan(tolerance);
      const { gradient, losses } = await coefficientGradient(
        { model, vectors, table: gated },
        [{ head: heads[i]!, batch: toBatch(g), weight: 1 }],
        "cross-entropy",
      );
      expect(Math.abs(losses[0]! - g.loss) / g.loss).toBeLessThan(tolerance);
      const expected = order.flatMap((row) => g.gradient[row]!);
      expect(relativeError(throughGate(gradient, raw, "tanh").values, expected)).toBeLessThan(tolerance);
    }
  });
}
