import { expect, test } from "vitest";
import { lessonKey } from "../../src/run/lessons.js";

/** What a lesson's name in the cache depends on: a merge that is a column speaks by its coefficients. */
const column = (label: string, c: number) => ({
  label: "a+b",
  terms: [{ member: { label }, coefficient: () => c }],
});
const key = (
  changed: {
    column?: object;
    packing?: string;
    basePacking?: string;
    temperature?: number;
    ids?: number[];
    sha256?: string;
    engine?: string;
  } = {},
): string => {
  const { packing = "f32", basePacking = "f32", temperature = 1, ids = [1, 2], engine = "wasm" } = changed;
  const vectors = { experts: ["a+b"], tensors: new Map([["w", {}]]), packing, basePacking };
  const task = { id: "a", kind: "generate", generation: { most: 4 } };
  const example = { kind: "generate", rows: [{ ids, types: [], targets: [3] }], label: 0, answers: ["x"] };
  const hashes = [
    { role: "base", file: "model.safetensors", sha256: "0" },
    { role: "x", file: "model.safetensors", sha256: changed.sha256 ?? "1" },
    { role: "y", file: "model.safetensors", sha256: "2" },
  ];
  const columns = [changed.column ?? column("x", 0.5)];
  const options = {
    engine,
    hashes,
    columns,
    distilOn: "own",
    divergence: "forward",
    temperature,
    teacherTokens: 8,
  };
  return lessonKey({ vectors } as never, task as never, [example] as never, options as never);
};

test("the same lesson has the same name", () => {
  expect(key()).toBe(key());
});

test.each([
  ["a column's coefficients", { column: column("x", 0.6) }],
  ["the models that it is of", { column: column("y", 0.5) }],
  ["their files", { sha256: "3" }],
  ["how task vectors are packed", { packing: "int8" }],
  ["how the base is", { basePacking: "int4" }],
  ["the engine", { engine: "node" }],
  ["the temperature", { temperature: 2 }],
  ["the texts", { ids: [1, 3] }],
])("%s give another", (_, changed) => {
  expect(key(changed)).not.toBe(key());
});
