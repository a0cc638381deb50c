import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { packageFolder } from "../../src/package.js";
import { mergeByFile } from "../../src/mergers/mergekit-file.js";
import { toFloat32 } from "../../src/tensor/dtype.js";
import { temporaryFolder } from "../helpers.js";

const root = join(packageFolder, "test", "golden", "mergekit");
const silent = { note() {}, progress() {}, stopping: () => false };

describe.each(["bert", "llama"])(
  "mergekit's files on a small %s family give what mergekit makes of them",
  (family) => {
    const files = readdirSync(join(root, family)).filter((file) => file.endsWith(".yml"));

    test("there are files", () => expect(files.length).toBeGreaterThan(20));

    test.each(files)("%s", async (file) => {
      const out = join(await temporaryFolder(), "out");
      await mergeByFile(join(root, family, file), { out, shardSize: 1e9, seed: 0 }, silent);
      const ours = await openSafetensors(join(out, "model.safetensors"));
      const theirs = await openSafetensors(join(root, family, file.replace(".yml", ".safetensors")));
      expect([...ours.entries.keys()].sort()).toEqual([...theirs.entries.keys()].sort());
      for (const [name, { dtype }] of theirs.entries) {
        const [a, b] = [await ours.read(name), await theirs.read(name)];
        expect([a.dtype, a.shape]).toEqual([dtype, b.shape]);
        const [x, y] = [toFloat32(a), toFloat32(b)];
        // float32: a few roundings of the largest number that takes part. bfloat16: one step, where a
        // rounding may fall either way; where mergekit computes in bfloat16 too, one step of each
        // number that takes part.
        const inHalves = file.endsWith("in-bf16.yml");
        const largest = Math.max(1, ...y.map(Math.abs));
        for (let i = 0; i < y.length; i++) {
          const oneStep = 2 ** (Math.floor(Math.log2(Math.max(Math.abs(y[i]!), 0.01))) - 7);
          const ofHalves = inHalves ? (4 * largest) / 256 : oneStep;
          const allowed = dtype === "F32" ? 2e-6 * largest : ofHalves;
          if (!(Math.abs(x[i]! - y[i]!) <= allowed)) expect.fail(`${name}[${i}]: ${x[i]} for ${y[i]}`);
        }
      }
      await ours.close();
      await theirs.close();
    });
  },
);
