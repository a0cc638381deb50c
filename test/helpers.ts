import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect } from "vitest";
import { packageFolder } from "../src/package.js";
import type { ResultRow } from "../src/report/rows.js";
import type { Task } from "../src/tasks/registry.js";

export const golden = <T>(name: string): T =>
  JSON.parse(readFileSync(join(packageFolder, "test", "golden", `${name}.json`), "utf8")) as T;

/** The real family and its data lie beside the project on our own machines, and are never part of it. */
export const shared = join(packageFolder, "..", "shared");
export const realFamily = join(packageFolder, "checkpoints", "minilm");
export const hasShared = existsSync(join(shared, "checkpoints", "minilm", "assemble"));

/** A folder that is gone after the test file. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "train-merge-"));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Holds two files against each other: much faster than toEqual, which goes through the numbers. */
export async function expectSameBytes(one: string, other: string): Promise<void> {
  const [a, b] = await Promise.all([readFile(one), readFile(other)]);
  expect(a.equals(b), `${one} has the bytes of ${other}`).toBe(true);
}

/** Largest |a − b| relative to the largest |b|. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values for ${expected.length}`);
  let worst = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    worst = Math.max(worst, Math.abs(actual[i]! - expected[i]!));
    scale = Math.max(scale, Math.abs(expected[i]!));
    if (Number.isNaN(actual[i]!)) return NaN;
  }
  return worst / (scale || 1);
}

/** A task of the registry, for what reads no data of it. */
export const rte: Task = {
  id: "rte",
  kind: "pair",
  labels: ["entailment", "not_entailment"],
  max_new_tokens: 1,
  metrics: ["accuracy"],
  synthetic: false,
  what: "",
};

/** A test score of a method on a task. */
export const testRow = (
  method: string,
  task: string,
  value: number,
  more: Partial<ResultRow> = {},
): ResultRow => ({
  method,
  task,
  split: "test",
  metric: "accuracy",
  value,
  n: 100,
  seed: 0,
  ...more,
});
