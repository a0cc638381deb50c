import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openMember } from "../../src/checkpoint/family.js";
import { withoutTableCopies } from "../../src/checkpoint/tied.js";
import { writeSafetensors } from "../../src/checkpoint/write.js";
import { bart } from "../../src/models/bart.js";
import { falcon } from "../../src/models/falcon.js";
import type { ModelFamily } from "../../src/models/types.js";
import { fromFloat32 } from "../../src/tensor/dtype.js";

/** A model of some tables. */
async function opened(family: ModelFamily, tables: Record<string, readonly number[]>) {
  const folder = await mkdtemp(join(tmpdir(), "train-merge-"));
  await writeFile(join(folder, "config.json"), "{}");
  const sources = Object.entries(tables).map(([name, values]) => ({
    name,
    shape: [values.length, 1],
    dtype: "F32" as const,
    bytes: async () => fromFloat32(Float32Array.from(values), "F32"),
  }));
  await writeSafetensors(join(folder, "model.safetensors"), sources);
  return openMember("base", folder, family.canonical);
}

const table = [1, 2, 3];

test("a second copy of the table under the output layer's name is none of a tied model's", async () => {
  const member = await opened(falcon, {
    "transformer.word_embeddings.weight": table,
    "lm_head.weight": table,
  });
  const [lean] = await withoutTableCopies([member], (name) => name === "word_embeddings.weight");
  expect(lean!.checkpoint.names).toEqual(["transformer.word_embeddings.weight"]);
  // Where the forward reads it, it is a tensor of its own.
  const [untied] = await withoutTableCopies([member], () => true);
  expect(untied!.checkpoint.names).toHaveLength(2);
});

test("so are the tables of an encoder and a decoder that share one", async () => {
  const names = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"];
  const stored = Object.fromEntries(names.map((name) => [`model.${name}.weight`, table]));
  const member = await opened(bart, stored);
  const [lean] = await withoutTableCopies([member], (name) => name === "shared.weight");
  expect(lean!.checkpoint.names).toEqual(["model.shared.weight"]);
});

test("an output layer that differs from the table it should be is refused", async () => {
  const member = await opened(falcon, {
    "transformer.word_embeddings.weight": table,
    "lm_head.weight": [1, 2, 4],
  });
  const tried = withoutTableCopies([member], (name) => name === "word_embeddings.weight");
  await expect(tried).rejects.toThrow(/"lm_head.weight" differs from "transformer.word_embeddings.weight"/);
});
