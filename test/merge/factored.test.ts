import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { writeSafetensors, type TensorSource } from "../../src/checkpoint/write.js";
import { factoredFamily } from "../../src/merge/factored.js";
import { columnOf } from "../../src/merge/source.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import { withAdapters } from "../../src/models/adapters.js";
import { t5 } from "../../src/models/t5.js";
import { elements, fromFloat32 } from "../../src/tensor/dtype.js";
import { temporaryFolder } from "../helpers.js";

const folder = await temporaryFolder();

const random = (name: string, shape: readonly number[], seed: number, around = 0): TensorSource => ({
  name,
  dtype: "F32",
  shape,
  bytes: async () =>
    fromFloat32(
      Float32Array.from({ length: elements(shape) }, (_, i) => around + 0.1 * Math.sin(1 + i * seed)),
      "F32",
    ),
});

// The published adapters' places: k, v and the feed-forward layer, twice k and v in the decoder.
test("eleven (IA)³ experts of T0-3B's shape: 192 layers, 2,112 coefficients", async () => {
  const config = {
    model_type: "t5",
    d_model: 8,
    d_kv: 4,
    d_ff: 12,
    num_layers: 24,
    num_decoder_layers: 24,
    num_heads: 2,
    vocab_size: 16,
    feed_forward_proj: "gated-gelu",
    tie_word_embeddings: false,
  };
  const model = t5.build(config);
  await mkdir(join(folder, "base"));
  await writeFile(join(folder, "base", "config.json"), JSON.stringify(config));
  await writeSafetensors(
    join(folder, "base", "model.safetensors"),
    [...model.parameters].map(([name, shape], i) => random(name, shape, i + 1)),
  );
  const modules = [...model.parameters.keys()]
    .filter((name) => /(Attention\.[kv]|DenseReluDense\.wo)\.weight$/.test(name))
    .map((name) => name.replace(/\.weight$/, ""));
  const tasks = Array.from({ length: 11 }, (_, i) => `task${i}`);
  for (const [i, task] of tasks.entries()) {
    await mkdir(join(folder, task));
    await writeFile(
      join(folder, task, "adapter_config.json"),
      JSON.stringify({ peft_type: "IA3", target_modules: ["k", "v", "wo"], feedforward_modules: ["wo"] }),
    );
    await writeSafetensors(
      join(folder, task, "adapter_model.safetensors"),
      modules.map((module, m) =>
        random(
          `base_model.model.${module}.ia3_l`,
          module.endsWith(".wo") ? [1, 12] : [8, 1],
          1 + i + m / 7,
          1,
        ),
      ),
    );
  }
  const base = await openMember("base", join(folder, "base"), t5.canonical);
  const family = await openFamily(
    base,
    tasks.map((task) => ({ task, folder: join(folder, task) })),
    t5.canonical,
  );
  const factored = (await factoredFamily(family, t5.canonical))!;
  const adapted = withAdapters(model, factored.adapterModules);
  const vectors = await loadTaskVectors(
    { base: factored.base, columns: factored.experts.map(columnOf) },
    [...adapted.parameters.keys()],
    { residency: "disk", tables: adapted.tables },
  );
  expect(vectors.layers.length).toBe(192);
  expect(vectors.layers.length * vectors.experts.length).toBe(2112);
  expect(vectors.layers.every(({ names }) => names.length === 1 && names[0]!.endsWith(".ia3_l"))).toBe(true);
  await family.close();
});
