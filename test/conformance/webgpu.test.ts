import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { webgpuCounts } from "../../src/backend/index.js";
import { applyGate } from "../../src/merge/table.js";
import { packageFolder } from "../../src/package.js";
import { coefficientGradient } from "../../src/train/step.js";
import { conformance } from "./suite.js";
import { goldenTable, load, toBatch } from "./load.js";

await conformance("webgpu", { parts: ["ops"] });

// Counted on an emulated card as on a real one.
describe.skipIf(webgpuCounts() === undefined)("what a step asks of the card", () => {
  test("with everything on the device: one submission, and only losses and ∂L/∂w come back", async () => {
    const { model, vectors, golden, heads, dispose } = await load(
      join(packageFolder, "checkpoints", "mini"),
      "mini",
    );
    const table = applyGate(goldenTable(vectors.layers.length, 5), "tanh");
    const jobs = [{ head: heads[0], batch: toBatch(golden.batches[0]!), weight: 1 }];
    const ask = async (blockwise: boolean) => {
      const before = { ...webgpuCounts()! };
      await coefficientGradient({ model, vectors, table, blockwise }, jobs, "cross-entropy");
      const after = webgpuCounts()!;
      return {
        dispatches: after.dispatches - before.dispatches,
        submissions: after.submissions - before.submissions,
        uploaded: after.uploaded - before.uploaded,
        downloaded: after.downloaded - before.downloaded,
      };
    };
    // The first step brings the task vectors to the card.
    await ask(false);
    const whole = await ask(false);
    console.log(`a step of the family that ships: ${JSON.stringify(whole)}`);
    expect(whole.submissions).toBe(1);
    expect(whole.dispatches).toBeGreaterThan(100);
    const coefficients = [...vectors.tensors.values()].reduce((sum, { experts }) => sum + experts.length, 0);
    expect(whole.downloaded).toBeLessThan(1.1 * 4 * (coefficients + 1));
    // Tables that experts changed travel by the rows that the batch names; nothing else of the family does.
    const all = 4 * 6 * [...vectors.tensors.values()].reduce((sum, { rows, width }) => sum + rows * width, 0);
    expect(whole.uploaded).toBeLessThan(all / 4);

    // By blocks: forward and back through each, and what it hands to the next comes back to the host.
    const stages = model.blocks.length;
    const blocks = await ask(true);
    expect(blocks.submissions).toBeLessThanOrEqual(3 * stages);
    dispose();
  });
});
