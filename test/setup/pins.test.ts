import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { nativePins } from "../../src/setup/tensorflow.js";

test("everything that setup native fetches has a hash", async () => {
  const lock = JSON.parse(await readFile(join(nativePins, "package-lock.json"), "utf8")) as {
    packages: Record<string, { integrity?: string }>;
  };
  const { "": own, ...packages } = lock.packages;
  expect(own).toMatchObject({ dependencies: { "@tensorflow/tfjs-node": "4.22.0" } });
  for (const [name, { integrity }] of Object.entries(packages)) expect(integrity, name).toMatch(/^sha512-/);
  const files = (await readdir(nativePins)).filter((name) => name.endsWith(".txt"));
  expect(files).toHaveLength(4);
  for (const file of files)
    for (const line of (await readFile(join(nativePins, file), "utf8")).trim().split("\n"))
      expect(line, file).toMatch(
        /^(tensorflow|tensorflow-cpu|nvidia-[\w-]+)==[\d.]+( --hash=sha256:[0-9a-f]{64})+$/,
      );
});
