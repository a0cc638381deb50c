import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { packageFolder } from "../../src/package.js";
import { findTensorFlow } from "../../src/setup/tensorflow.js";
import { temporaryFolder } from "../helpers.js";

const cache = await temporaryFolder();
const main = join(packageFolder, "dist", "src", "cli", "main.js");
const run = (...args: string[]) =>
  spawnSync(process.execPath, [main, ...args], {
    encoding: "utf8",
    env: { ...process.env, TRAIN_MERGE_CACHE: cache },
  });

/** A folder that looks like a TensorFlow; nothing in it can be linked. */
function hollow(folder: string): string {
  const place = join(folder, "lib", "python3.11", "site-packages", "tensorflow");
  mkdirSync(join(place, "include"), { recursive: true });
  mkdirSync(join(place, "..", "tensorflow_cpu-2.21.0.dist-info"));
  const names =
    process.platform === "darwin"
      ? ["libtensorflow_cc.2.dylib", "libtensorflow_framework.2.dylib"]
      : ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2"];
  for (const name of names) writeFileSync(join(place, name), "");
  return place;
}

test("TensorFlow is found in a virtual environment, in site-packages and by its own folder", async () => {
  const environment = await temporaryFolder();
  const place = hollow(environment);
  for (const given of [environment, join(place, ".."), place])
    expect(findTensorFlow(given)).toMatchObject({ folder: place, version: "2.21.0" });
});

test("a folder without TensorFlow is one line, and leaves nothing behind", () => {
  const { status, stderr } = run("setup", "native", "--tensorflow", cache);
  expect(status).toBe(1);
  expect(stderr).toMatch(/^train-merge: --tensorflow .*: there is no libtensorflow_cc/);
  expect(readdirSync(cache)).toEqual([]);
});

test("--remove says whether there was anything", () => {
  expect(run("setup", "native", "--remove").stdout).toBe("there was nothing to remove\n");
  mkdirSync(join(cache, "native"));
  mkdirSync(join(cache, "native.123.partial")); // of a set-up that was killed
  expect(run("setup", "native", "--remove").stdout).toBe("removed\n");
  expect(readdirSync(cache)).toEqual([]);
});

test("doctor says of every engine whether it runs, and what mends it where not", () => {
  const { engines, chosen } = JSON.parse(
    execFileSync(process.execPath, [main, "doctor", "--json"], {
      encoding: "utf8",
      env: { ...process.env, TRAIN_MERGE_CACHE: cache },
    }),
  ) as {
    chosen: string;
    engines: { name: string; found: boolean; detail?: string; problem?: string; mend?: string }[];
  };
  expect(engines.map(({ name }) => name)).toEqual(["node-gpu", "webgpu", "node", "wasm", "cpu"]);
  for (const { found, detail, problem, mend } of engines)
    expect(found ? detail : problem && mend).toBeTruthy();
  expect(engines.find(({ name }) => name === "wasm")!.found).toBe(true);
  expect(engines.find(({ name }) => name === chosen)!.found).toBe(true);
});
