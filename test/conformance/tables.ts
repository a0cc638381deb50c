import { engine, memory } from "@tensorflow/tfjs-core";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import type { Packing } from "../../src/merge/packing.js";
import { piecesOf } from "../../src/merge/vectors.js";
import { packageFolder } from "../../src/package.js";
import { coefficientGradient } from "../../src/train/step.js";
import { relativeError } from "../helpers.js";
import { firstOf } from "../../scripts/rows-batch.js";
import { goldenTable, load, toBatch } from "./load.js";

/** Task vectors of embeddings on the device: their rows are taken there, and are those that would have travelled. */
export function tableTests(tolerance: number, slow: boolean): void {
  const backend = () => engine().backend as { tensorLimit?: number };
  const own = backend().tensorLimit;
  afterEach(() => {
    if (own === undefined) delete backend().tensorLimit;
    else backend().tensorLimit = own;
  });

  const packings: Packing[] = ["f32", "bf16", "int8", "sparse"];
  const cases = packings.flatMap((packing) => [1, 3].map((pieces) => [packing, pieces] as const));
  // What is not packed, and what is packed otherwise, says the same of a slow engine.
  test.each(cases.filter(([packing, pieces]) => !slow || (packing === "int8" && pieces === 3)))(
    "as %s, cut in %i: the same losses and ∂L/∂w as from host memory",
    async (packing, pieces) => {
      const folder = join(packageFolder, "checkpoints", "mini");
      const found = [];
      for (const holdsTables of [false, true]) {
        const before = memory().numTensors;
        if (pieces > 1) backend().tensorLimit = 4 * 5 * 96 * 80;
        const opened = await load(folder, "mini", { packing, holdsTables, density: 0.2 });
        const { model, vectors, heads, golden, dispose } = opened;
        const words = vectors.tensors.get("embeddings.word_embeddings.weight")!;
        expect(words.experts.length).toBeGreaterThan(1);
        if (pieces > 1) expect(piecesOf(words).length).toBeGreaterThan(1);
        const batch = firstOf(toBatch(golden.batches[0]!), 3);
        const jobs = [{ head: heads[0]!, batch, weight: 1 }];
        const table = goldenTable(vectors.layers.length, golden.tasks.length);
        const held = memory().numTensors;
        found.push(await coefficientGradient({ model, vectors, table }, jobs, "cross-entropy"));
        expect(memory().numTensors).toBe(held);
        dispose();
        expect(memory().numTensors).toBe(before);
      }
      const [apart, together] = found;
      expect(relativeError(together!.losses, apart!.losses)).toBeLessThan(tolerance);
      expect(relativeError(together!.gradient.values, apart!.gradient.values)).toBeLessThan(tolerance);
    },
  );
}
