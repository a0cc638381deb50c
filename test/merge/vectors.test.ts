import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { memory } from "@tensorflow/tfjs-core";
import { beforeAll, describe, expect, test } from "vitest";
import { startEngine } from "../../src/backend/index.js";
import { openFamily, openMember, type Family } from "../../src/checkpoint/family.js";
import { writeSafetensors } from "../../src/checkpoint/write.js";
import { mergeTensors } from "../../src/merge/merged.js";
import { basePackings, packings } from "../../src/merge/packing.js";
import { columnOf, type Column } from "../../src/merge/source.js";
import { makeTable } from "../../src/merge/table.js";
import { residencies } from "../../src/merge/residency.js";
import { cutRuns } from "../../src/merge/stream.js";
import { loadTaskVectors, type VectorOptions } from "../../src/merge/vectors.js";
import { fromFloat32 } from "../../src/tensor/dtype.js";
import { temporaryFolder } from "../helpers.js";

type Tensors = Record<string, number[]>;

const base: Tensors = { a: [1, 2], b: [3, 4, 5], c: [6], t: [1, 2, 3, 4, 5, 6] };
const experts: Record<string, Tensors> = {
  x: { ...base, a: [2, 2] },
  y: { ...base, b: [3, 4, 6] },
  z: { ...base, a: [1, 3], b: [4, 4, 5], t: [1, 2, 3, 4, 7, 6] },
};
const shapeOf = (name: string, values: number[]) => (name === "t" ? [3, 2] : [values.length]);
let family: Family;

beforeAll(async () => {
  await startEngine("cpu");
  const folder = await temporaryFolder();
  for (const [label, tensors] of Object.entries({ base, ...experts })) {
    await mkdir(join(folder, label), { recursive: true });
    await writeFile(join(folder, label, "config.json"), "{}");
    await writeSafetensors(
      join(folder, label, "model.safetensors"),
      Object.entries(tensors).map(([name, values]) => ({
        name,
        dtype: "BF16" as const,
        shape: shapeOf(name, values),
        bytes: async () => fromFloat32(Float32Array.from(values), "BF16"),
      })),
    );
  }
  family = await openFamily(
    await openMember("base", join(folder, "base"), (name) => name),
    Object.keys(experts).map((task) => ({ task, folder: join(folder, task) })),
    (name) => name,
  );
  return () => family.close();
});

const load = (given: Partial<VectorOptions>, columns: Column[] = family.experts.map(columnOf)) =>
  loadTaskVectors({ base: family.base, columns }, Object.keys(base), { tables: new Set(["t"]), ...given });

describe.each(residencies)("%s", (residency) => {
  test.each(packings)(
    "what nobody changed has no layer; an expert takes part only in what it changed (%s)",
    async (packing) => {
      const before = memory().numTensors;
      const vectors = await load({ packing, residency });
      expect(vectors.layers.map(({ id }) => id)).toEqual(["a", "b", "t"]);
      expect([...vectors.tensors.values()].map(({ experts: changed }) => changed)).toEqual([
        [0, 2],
        [1, 2],
        [],
        [2],
      ]);
      // Coefficients 1, 10, 100: what an expert did not change must not move.
      const ids = Int32Array.of(0, 2);
      const merged = await mergeTensors(
        vectors,
        makeTable(3, 3, (_, column) => 10 ** column),
        [{ name: "a" }, { name: "b" }, { name: "c" }, { name: "t", ids }, { name: "t" }],
      );
      const expected = [
        [1 + 1, 2 + 100],
        [3 + 100, 4, 5 + 10],
        [6],
        [1, 2, 5 + 200, 6],
        [1, 2, 3, 4, 5 + 200, 6],
      ];
      for (const [i, t] of merged.entries())
        (await t.data()).forEach((x, j) => expect(x).toBeCloseTo(expected[i]![j]!, 4));
      expect(merged.map(({ shape }) => shape)).toEqual([[2], [3], [1], [2, 2], [3, 2]]);
      merged.forEach((t) => t.dispose());
      vectors.dispose();
      expect(memory().numTensors).toBe(before);
    },
  );
});

test("a column may be a merge of several, given by its coefficients", async () => {
  const [x, , z] = family.experts;
  const both: Column = {
    label: "x+z",
    terms: [
      { member: x!, coefficient: () => 0.5 },
      { member: z!, coefficient: (name) => (name === "a" ? 2 : 0) },
    ],
  };
  for (const residency of residencies) {
    const vectors = await load({ residency }, [both]);
    const [a] = await mergeTensors(
      vectors,
      makeTable(1, 1, () => 1),
      [{ name: "a" }],
    );
    expect(Array.from(await a!.data())).toEqual([1.5, 4]);
    expect(vectors.layers.map(({ id }) => id)).toEqual(["a"]);
    a!.dispose();
    vectors.dispose();
  }
});

test("runs of rows are cut into parts of a bounded number of rows", () => {
  expect(cutRuns([[0, 5]], 2)).toEqual([[[0, 2]], [[2, 4]], [[4, 5]]]);
  expect(
    cutRuns(
      [
        [1, 2],
        [4, 8],
      ],
      3,
    ),
  ).toEqual([
    [
      [1, 2],
      [4, 6],
    ],
    [[6, 8]],
  ]);
  expect(cutRuns([[3, 4]], 100)).toEqual([[[3, 4]]]);
});

test("a base in fewer bits: exact where its file has it so, else off by what it says; files are exact", async () => {
  const wide = await temporaryFolder();
  const numbers = Array.from({ length: 64 }, (_, i) => Math.sin(i) * 2 ** (i >> 5));
  const files = { base: numbers, x: numbers.map((value, i) => value + Number(i % 7 === 0)) };
  for (const [label, values] of Object.entries(files)) {
    await mkdir(join(wide, label), { recursive: true });
    await writeFile(join(wide, label, "config.json"), "{}");
    const bytes = async () => fromFloat32(Float32Array.from(values), "BF16");
    const source = { name: "w", dtype: "BF16" as const, shape: [2, 32], bytes };
    await writeSafetensors(join(wide, label, "model.safetensors"), [source]);
  }
  const own = await openFamily(
    await openMember("base", join(wide, "base"), (name) => name),
    [{ task: "x", folder: join(wide, "x") }],
    (name) => name,
  );
  const { numTensors } = memory();
  const table = makeTable(1, 1, () => 0.5);
  const merged = async (vectors: Awaited<ReturnType<typeof loadTaskVectors>>) => {
    const [tensor] = await mergeTensors(vectors, table, [{ name: "w" }]);
    const values = await tensor!.data<"float32">();
    tensor!.dispose();
    return values;
  };
  const found = new Map<string, Float32Array>();
  for (const basePacking of basePackings) {
    const columns = { base: own.base, columns: own.experts.map(columnOf) };
    const vectors = await loadTaskVectors(columns, ["w"], { tables: new Set(), basePacking });
    found.set(basePacking, await merged(vectors));
    expect(await merged(vectors.fromFiles())).toEqual(found.get("f32"));
    const exact = basePacking === "f32" || basePacking === "file";
    expect(vectors.baseError > 0).toBe(!exact);
    if (exact) expect(found.get(basePacking)).toEqual(found.get("f32"));
    else expect(found.get(basePacking)).not.toEqual(found.get("f32"));
    expect(vectors.baseError).toBeLessThan({ f32: 1e-9, file: 1e-9, int8: 0.01, int4: 0.12 }[basePacking]);
    vectors.dispose();
  }
  expect(memory().numTensors).toBe(numTensors);
  await own.close();
});
