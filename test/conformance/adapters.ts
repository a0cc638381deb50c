import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { memory } from "@tensorflow/tfjs-core";
import { expect, test } from "vitest";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { factoredFamily } from "../../src/merge/factored.js";
import { columnOf } from "../../src/merge/source.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import { withAdapters } from "../../src/models/adapters.js";
import type { Head } from "../../src/models/layers.js";
import { familyOf } from "../../src/models/index.js";
import { packageFolder } from "../../src/package.js";
import { disposeHead, loadHead } from "../../src/inputs/prepare.js";
import { rankedBatch } from "./load.js";
import { expectMerge, type GoldenMerge } from "./merged.js";

const folder = join(packageFolder, "test", "golden", "adapters");

/** PEFT's adapters, beside the weights and as models, against PEFT: logits, loss and ∂L/∂w. */
export function adapterTests(tolerance: number, slow: boolean): void {
  const cases = existsSync(folder) ? readdirSync(folder) : [];
  const forms = cases
    .flatMap(
      (name) =>
        [
          [name, "beside the weights", "device"],
          [name, "beside the weights", "disk"],
          [name, "as models", "device"],
          [name, "as models", "disk"],
        ] as const,
    )
    .filter(([, form, residency]) => !slow || (form === "beside the weights") === (residency === "device"));
  test.each(forms)(
    "%s, %s, from %s: logits, loss and ∂L/∂w equal PEFT's, and nothing is left behind",
    async (name, form, residency) => {
      const g = JSON.parse(readFileSync(join(folder, name, "golden.json"), "utf8")) as GoldenMerge;
      const config = JSON.parse(readFileSync(join(folder, name, "base", "config.json"), "utf8")) as Record<
        string,
        unknown
      >;
      const { canonical, build, head } = familyOf(config, name);
      const outputLayer = g.rows.some(({ targets }) => targets) ? "score" : "pool";
      const before = memory().numTensors;
      const ia3 = name.startsWith("ia3");
      const family = await openFamily(
        await openMember("base", join(folder, name, "base"), canonical),
        ["a", "b"].map((task) => ({ task, folder: join(folder, name, task) })),
        canonical,
      );
      const plain = build(config, { outputLayer, has: (wanted) => family.base.actual.has(wanted) });
      const factored = form === "as models" ? undefined : (await factoredFamily(family, canonical))!;
      const model = factored ? withAdapters(plain, factored.adapterModules) : plain;
      const heads: (Head | undefined)[] = [];
      for (const expert of family.experts)
        heads.push(await loadHead(expert, outputLayer === "score" ? undefined : head, "row"));
      const { base, experts } = factored ?? family;
      const vectors = await loadTaskVectors(
        { base, columns: experts.map(columnOf) },
        [...model.parameters.keys()],
        { tables: model.tables, residency, granularity: ia3 ? "module" : "tensor" },
      );
      const rows = g.rows.map(({ ids, targets }) => ({ ids, types: ids.map(() => 0), targets }));
      const batch = rankedBatch(rows, g);
      const rowByName = new Map(g.layers.map((layer, row) => [canonical(layer), row]));
      const order = vectors.layers.map(({ id }) => rowByName.get(id)!);
      expect([...order].sort((a, b) => a - b)).toEqual(g.layers.map((_, row) => row));
      await expectMerge(g, model, vectors, heads, batch, order, [false, true], tolerance);
      vectors.dispose();
      heads.forEach(disposeHead);
      await family.close();
      expect(memory().numTensors).toBe(before);
    },
  );
}
