import { engine, memory } from "@tensorflow/tfjs-core";
import { afterEach, expect, test } from "vitest";
import { rowsTogether, piecesOf } from "../../src/merge/vectors.js";
import { mergedValues, mergeTensors } from "../../src/merge/merged.js";
import { generate } from "../../src/evaluate/generate.js";
import { makeTable } from "../../src/merge/table.js";
import { outputRuns } from "../../src/stages/output.js";
import { golden } from "../helpers.js";
import { goldenTable, rankedBatch } from "./load.js";
import { expectMerge } from "./merged.js";
import { openCase, read, rowsOf } from "./models.js";

interface Said {
  prompts: number[][];
  said: number[][];
}

interface LimitedBackend {
  tensorLimit?: number;
}

/**
 * Language models small enough that their output layer, [40, 16], is the largest tensor; tied to the
 * embedding, and not.
 */
const cases = ["llama-llama3", "mistral", "opt", "qwen2", "t5", "t5-untied"];

/** Tensors over the engine's limit: held in pieces, the output layer multiplied a piece at a time. */
export function limitTests(tolerance: number, slow: boolean): void {
  const backend = () => engine().backend as LimitedBackend;
  const own = backend().tensorLimit;
  afterEach(() => {
    if (own === undefined) delete backend().tensorLimit;
    else backend().tensorLimit = own;
  });

  test("a tensor is cut so that the task vectors of all its experts fit", () => {
    backend().tensorLimit = 4 * 16 * 2 * 19 + 100;
    const tensor = { rows: 40, width: 16, experts: [0, 1] };
    expect(rowsTogether(tensor)).toBe(19);
    expect(piecesOf(tensor)).toEqual([
      [0, 19],
      [19, 38],
      [38, 40],
    ]);
    expect(piecesOf({ ...tensor, experts: [] })).toEqual([
      [0, 39],
      [39, 40],
    ]);
    // A row is the least there is.
    expect(rowsTogether({ rows: 40, width: 1e6, experts: [0] })).toBe(1);
  });

  test.each(cases)(
    "%s: an output layer in three pieces gives transformers' logits, loss and ∂L/∂w",
    async (name) => {
      const g = read(name);
      const own = 4 * 40 * 16;
      backend().tensorLimit = own - 1;
      const { model, vectors, canonical, heads, close } = await openCase(name, g);
      const large = [...vectors.tensors.values()].filter(({ rows, width }) => 4 * rows * width >= own);
      expect(large.length).toBeGreaterThan(0);
      for (const tensor of large) expect(piecesOf(tensor)).toHaveLength(tensor.experts.length ? 3 : 2);
      const rowByName = new Map(g.layers.map((layer, row) => [canonical(layer), row]));
      const order = vectors.layers.map(({ id }) => rowByName.get(id)!);
      const batch = rankedBatch(rowsOf(g, model), g);
      await expectMerge(g, model, vectors, heads, batch, order, [false, true], tolerance);
      // What is written is the same in pieces and whole.
      const table = goldenTable(vectors.layers.length, 2);
      const inPieces = await mergedValues(vectors, table, large[0]!.name);
      backend().tensorLimit = Infinity;
      const [whole] = await mergeTensors(vectors, table, [{ name: large[0]!.name }]);
      expect([...inPieces]).toEqual([...(await whole!.data())]);
      whole!.dispose();
      await close();
    },
  );

  // Away from the device, by blocks: pieces are merged, used and gone, one after the other.
  const { most, cases: texts } = golden<{ most: number; cases: Record<string, Said> }>("generation");
  const models = slow ? ["qwen3"] : ["llama-llama3", "mistral", "qwen3", "gemma2", "gemma3", "opt"];
  const places = slow ? (["disk"] as const) : (["disk", "host"] as const);
  test.each(models.flatMap((name) => places.map((place) => [name, place] as const)))(
    "%s from %s: an output layer that is never all there gives transformers' logits, loss, ∂L/∂w and words",
    async (name, residency) => {
      const g = read(name);
      // Task vectors of 15 rows: three pieces of 40.
      backend().tensorLimit = 4 * 15 * 16 * 2;
      const { model, vectors, canonical, heads, close } = await openCase(name, g, residency);
      expect(outputRuns(vectors, model.output!.weight)).toEqual([
        [0, 15],
        [15, 30],
        [30, 40],
      ]);
      const rowByName = new Map(g.layers.map((layer, row) => [canonical(layer), row]));
      const order = vectors.layers.map(({ id }) => rowByName.get(id)!);
      const batch = rankedBatch(rowsOf(g, model), g);
      const before = memory().numTensors;
      await expectMerge(g, model, vectors, heads, batch, order, [true], tolerance);
      const table = makeTable(vectors.layers.length, 2, (_, column) => (column === 0 ? 1 : 0));
      const { prompts, said } = texts[name]!;
      const rows = prompts.map((ids) => ({ ids, types: [] }));
      expect(await generate({ model, vectors, table, blockwise: true }, rows, most)).toEqual(said);
      expect(memory().numTensors).toBe(before);
      await close();
    },
  );
}
