import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { startEngine } from "../../src/backend/index.js";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { mergeOnDisk } from "../../src/disk/merge.js";
import { checkPlanned } from "../../src/disk/written.js";
import { planMerge } from "../../src/folder/merge.js";
import { writeModel } from "../../src/folder/weights.js";
import { columnOf, type Column } from "../../src/merge/source.js";
import { makeTable } from "../../src/merge/table.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import { findMethod } from "../../src/methods/index.js";
import { resolveValues } from "../../src/methods/values.js";
import { fresh, model } from "../mergers/small.js";

await startEngine("cpu");
const tensors = (...values: number[]) => ({
  "layers.0.q.weight": [[2, 2], ...values] as [number[], ...number[]],
});
const folders = [
  await model("base", tensors(1, 2, 3, 4)),
  await model("a", tensors(2, 2, 3, 5)),
  await model("b", tensors(1, 3, 5, 4)),
] as const;
const family = await openFamily(
  await openMember("base", folders[0], (name) => name),
  [
    { task: "a", folder: folders[1] },
    { task: "b", folder: folders[2] },
  ],
  (name) => name,
);
const { base, experts } = family;
afterAll(() => family.close());

const planOf = (name: string, given: Record<string, unknown>) => {
  const method = findMethod(name);
  const values = resolveValues(method, given, experts.length);
  return planMerge({ method, values, base, inputs: experts, dtype: "auto", shardSize: 1e9 }).plan;
};

test.each([
  ["linear", { weight: [1, 3] }, { weight: [1, 2] }],
  ["average", {}, undefined],
  ["task-arithmetic", { lambda: 0.3 }, { lambda: 0.31 }],
])("%s on disk is what its plan says, and not what another says", async (name, given, other) => {
  const out = fresh(name);
  const plan = planOf(name, given);
  const [file = ""] = await mergeOnDisk(plan, out, { shardBytes: 1e9, threads: 0 });
  await checkPlanned([join(out, file)], plan, 0);
  const wrong = other ? planOf(name, other) : planOf("linear", { weight: [2, 1] });
  await expect(checkPlanned([join(out, file)], wrong, 0)).rejects.toThrow(
    /"layers.0.q.weight" holds .* is right/,
  );
});

test("a model by a table is looked at by the columns that it is of, and is not left where they differ", async () => {
  const columns = experts.map(columnOf);
  const vectors = await loadTaskVectors({ base, columns }, ["layers.0.q.weight"], { tables: new Set() });
  const table = makeTable(1, 2, (_, column) => 0.25 + column);
  const write = (out: string, of: readonly Column[]) =>
    writeModel(out, { family, head: undefined, vectors, table, columns: of }, undefined, 1e9);
  try {
    await write(fresh("right"), columns);
    const out = fresh("wrong");
    await expect(write(out, columns.toReversed())).rejects.toThrow(/"layers.0.q.weight" holds .* is right/);
    expect(await readdir(out)).toEqual([]);
  } finally {
    vectors.dispose();
  }
});
