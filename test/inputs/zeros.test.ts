import { cp, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openMember } from "../../src/checkpoint/family.js";
import { writeSafetensors } from "../../src/checkpoint/write.js";
import { withoutUnread } from "../../src/inputs/models.js";
import { bart } from "../../src/models/bart.js";
import { packageFolder } from "../../src/package.js";
import { fromFloat32 } from "../../src/tensor/dtype.js";

/** A checkpoint whose only tensor is a bias of its scores. */
async function withBias(values: readonly number[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "train-merge-"));
  const config = join(packageFolder, "test", "golden", "models", "bart", "base", "config.json");
  await cp(config, join(folder, "config.json"));
  await writeSafetensors(join(folder, "model.safetensors"), [
    {
      name: "final_logits_bias",
      shape: [1, values.length],
      dtype: "F32",
      bytes: async () => fromFloat32(Float32Array.from(values), "F32"),
    },
  ]);
  return folder;
}

test("a bias that a forward leaves out as 0 is refused where it is not", async () => {
  const [none, some] = await Promise.all([withBias([0, 0, 0]), withBias([0, 0.5, 0])]);
  for (const folder of [none, some]) {
    const member = await openMember("base", folder, bart.canonical);
    const checked = withoutUnread(bart, bart.build(member.checkpoint.config), [member]);
    if (folder === none) await expect(checked).resolves.toHaveLength(1);
    else await expect(checked).rejects.toThrow(/"final_logits_bias" is not 0/);
    await member.checkpoint.close();
  }
});
