import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { startEngine, watchMemory } from "../../src/backend/index.js";
import { makeTable } from "../../src/merge/table.js";
import { packageFolder } from "../../src/package.js";
import { placements, predict } from "../../src/plan/memory.js";
import { entries, sum } from "../../src/plan/shape.js";
import type { FamilyShape } from "../../src/plan/shape.js";
import { coefficientGradient } from "../../src/train/step.js";
import { load, toBatch } from "../conformance/load.js";

beforeAll(async () => {
  await startEngine("wasm");
});

/** What the plan adds for an engine's small change: on a model as small as this one it would hide everything. */
const constant = 64 * 2 ** 20;

const cases = [
  ...placements.map((placement) => ({ ...placement, basePacking: "f32" as const, holdsTables: false })),
  { residency: "device", blockwise: false, basePacking: "f32", holdsTables: true },
  { residency: "device", blockwise: true, basePacking: "int8", holdsTables: false },
  { residency: "device", blockwise: false, basePacking: "int4", holdsTables: false },
] as const;

test.each(cases)(
  "a step on $residency, by blocks: $blockwise, base as $basePacking, embeddings too: $holdsTables: " +
    "within its plan, and that is not idle",
  async ({ residency, blockwise, basePacking, holdsTables }) => {
    const folder = join(packageFolder, "checkpoints", "mini");
    const memory = watchMemory();
    memory.reset();
    const before = memory.live();
    const { model, vectors, heads, golden, dispose } = await load(folder, "mini", {
      residency,
      basePacking,
      holdsTables,
    });
    const jobs = golden.batches.map((g, i) => ({ head: heads[i]!, batch: toBatch(g), weight: 1 }));
    const rows = jobs.flatMap(({ batch }) => batch.rows);
    const family: FamilyShape = {
      experts: 5,
      width: model.width,
      heads: model.heads,
      coefficients: vectors.layers.length * 5,
      blocks: model.blocks.map(({ id, shapes }) => ({ id, names: [...shapes.keys()] })),
      tensors: [...model.parameters].map(([name, shape]) => ({
        name,
        shape,
        table: model.tables.has(name),
        bytes: 2,
      })),
    };
    const microBatch = 256;
    await coefficientGradient(
      { model, vectors, table: makeTable(vectors.layers.length, 5, () => 0.2), blockwise, microBatch },
      jobs,
      "cross-entropy",
    );
    const peak = memory.peak() - before;
    dispose();
    const step = {
      tokens: rows.reduce((n, { ids }) => n + ids.length, 0),
      microBatch,
      length: Math.max(...rows.map(({ ids }) => ids.length)),
    };
    const planned =
      predict(
        {
          family,
          step,
          options: { packing: "f32", basePacking, density: 1 },
          rates: { flops: 1, merge: 1, upload: 1, read: 1 },
        },
        { residency, blockwise, holdsTables },
      ).device - constant;
    expect(peak).toBeLessThanOrEqual(planned);
    expect(planned).toBeLessThan(2.5 * peak);
    if (blockwise && residency !== "device") {
      // The bound of a block at a time: the largest block's weights four times, the activations of one
      // pass through it, a part.
      const largest = Math.max(
        ...model.blocks.map(({ shapes }) =>
          sum(family.tensors.filter((t) => shapes.has(t.name) && !t.table).map(entries)),
        ),
      );
      expect(peak).toBeLessThan(4 * 4 * largest + 4 * microBatch * 40 * model.width + 8 * 2 ** 20);
    }
  },
);
