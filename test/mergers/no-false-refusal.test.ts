/** What belongs together is merged: every family there is, and cases of public reports that are right. */
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../../src/checkpoint/write.js";
import { mergeFolders, type ModelsMerge } from "../../src/mergers/models.js";
import { findMethod } from "../../src/methods/index.js";
import { packageFolder } from "../../src/package.js";
import { fromFloat32, isFloat, toFloat32, writtenType } from "../../src/tensor/dtype.js";
import { shared, temporaryFolder } from "../helpers.js";

const goldens = join(packageFolder, "test", "golden");
const scratch = await temporaryFolder();
let made = 0;

async function merge(
  options: Pick<ModelsMerge, "models" | "base">,
  method = "task-arithmetic",
): Promise<string[]> {
  const notes: string[] = [];
  await mergeFolders(
    {
      method: findMethod(method),
      given: method === "task-arithmetic" ? { lambda: 0.5 } : {},
      out: join(scratch, `out ${made++}`),
      dtype: "auto",
      shardSize: 1e9,
      threads: 0,
      strict: true,
      ...options,
    },
    { note: (text) => void notes.push(text), progress() {}, stopping: () => false },
  );
  return notes;
}

/** A model as fine-tuning leaves it: every weight a few per cent off. */
async function tuned(base: string, seed: number): Promise<string> {
  const folder = join(scratch, `tuned ${made++}`);
  await cp(base, folder, { recursive: true });
  const file = await openSafetensors(join(base, "model.safetensors"));
  const sources: TensorSource[] = [];
  for (const name of file.entries.keys()) {
    const tensor = await file.read(name);
    const { dtype, shape } = tensor;
    if (!isFloat(dtype)) sources.push({ name, dtype, shape, bytes: async () => tensor.bytes });
    else {
      const values = toFloat32(tensor).map((x, i) => x * (1 + 0.05 * Math.sin(seed + 7 * i)));
      const target = writtenType(dtype);
      sources.push({ name, dtype: target, shape, bytes: async () => fromFloat32(values, target) });
    }
  }
  await file.close();
  await writeSafetensors(join(folder, "model.safetensors"), sources);
  return folder;
}

const families = readdirSync(join(goldens, "models"))
  .map((name) => join(goldens, "models", name, "base"))
  .filter((base) => existsSync(join(base, "model.safetensors")));
const mini = join(packageFolder, "checkpoints", "mini");

describe.each([...families, join(mini, "base")])("%s", (base) => {
  test("merges with models tuned from it, and nothing stands out", async () => {
    const models = [await tuned(base, 1), await tuned(base, 2)];
    expect(await merge({ base, models })).toEqual([]);
    expect(await merge({ models }, "average")).toEqual([]);
  });
});

test("the experts of the family that ships merge", async () => {
  const models = ["rte", "cb", "copa"].map((task) => join(mini, "experts", task));
  for (const note of await merge({ base: join(mini, "base"), models }))
    expect(note).toMatch(/left out|taken over/);
});

test.each(readdirSync(join(goldens, "adapters")))("%s's adapters merge on their base", async (name) => {
  const folder = join(goldens, "adapters", name);
  const models = ["a", "b"].map((one) => join(folder, one));
  const notes = await merge({ base: join(folder, "base"), models });
  for (const note of notes) expect(note).toMatch(/left out/);
});

const cases = join(shared, "cases");
const guards = existsSync(cases)
  ? readdirSync(cases).filter((name) => {
      const path = join(cases, name, "case.json");
      return existsSync(path) && (JSON.parse(readFileSync(path, "utf8")) as { guard?: boolean }).guard;
    })
  : [];

test.skipIf(guards.length === 0)(
  `the guard cases of public reports hold${guards.length ? "" : " (skipped: ../shared/cases is not there)"}`,
  async () => {
    const numbers = guards.map((name) => String(Number.parseInt(name, 10)));
    const judge = promisify(execFile)(process.execPath, [
      join(cases, "judge.mjs"),
      "--bin",
      `node ${join(packageFolder, "dist", "src", "cli", "main.js")}`,
      ...numbers,
    ]);
    expect((await judge).stdout).toContain(`${guards.length} of ${guards.length} hold`);
  },
);
