import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { mergeByMergekitFile } from "../../src/mergers/mergekit-file.js";
import { temporaryFolder } from "../helpers.js";
import { expectClose } from "./close.js";

const root = join(packageFolder, "test", "golden", "mergekit");
const silent = { note() {}, progress() {}, stopping: () => false };

describe.each([
  ["bert", 20],
  ["llama", 20],
  ["t5", 0],
] as const)("mergekit's files on a small %s family give what mergekit makes of them", (family, more) => {
  const files = readdirSync(join(root, family)).filter((file) => file.endsWith(".yml"));

  test("there are files", () => expect(files.length).toBeGreaterThan(more));

  test.each(files)("%s", async (file) => {
    const out = join(await temporaryFolder(), "out");
    await mergeByMergekitFile(join(root, family, file), { out, shardSize: 1e9, seed: 0 }, silent);
    const theirs = join(root, family, file.replace(".yml", ".safetensors"));
    await expectClose(join(out, "model.safetensors"), theirs, file.endsWith("in-bf16.yml"));
  });
});
