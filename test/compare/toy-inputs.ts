import type { MergeOptions } from "../../src/config/options.js";
import type { Inputs } from "../../src/inputs/open.js";
import { toyExample, toyFamily, toyMember, toyModel, toyTask } from "../toy.js";

/** Settings of a comparison of two tasks; what is not here is read by nobody who is not mocked. */
export const toyOptions = (changed: Partial<MergeOptions> = {}): MergeOptions =>
  ({
    tasks: ["a", "b"],
    seed: 3,
    valPerTask: 8,
    maxLength: 16,
    dtype: "auto",
    split: "files",
    score: "sum",
    shardSize: 1000,
    ...changed,
  }) as MergeOptions;

/** What a comparison reads: two experts of the toy family, which are right on their own tasks alone. */
export async function toyInputs(changed: Partial<Inputs> = {}): Promise<Inputs> {
  const experts = { a: { u: [1, 0] }, b: { u: [0, 1] } } as const;
  const { model, vectors, dispose } = await toyFamily(experts);
  const task = (id: string, ids: readonly number[], label: number) =>
    toyTask(id, { validation: [toyExample(ids, label)], test: [toyExample(ids, label)] });
  const inputs = {
    name: "toy",
    model,
    plain: toyModel(),
    vectors,
    // The other logit is higher, unless the task's expert doubles the right one.
    tasks: [task("a", [1, 1.5], 0), task("b", [1.5, 1], 1)],
    hashes: [{ role: "base", file: "model.safetensors", sha256: "0" }],
    plan: { engine: "cpu", chosen: { residency: "device", blockwise: false }, step: { microBatch: 64 } },
    family: { base: toyMember("base", {}), experts: [toyMember("a", experts.a), toyMember("b", experts.b)] },
    heads: ["head of a", "head of b"],
    head: undefined,
    data: "/data",
    locations: {
      base: "/base",
      sources: ["a", "b"].map((label) => ({ label, folder: `/${label}`, tasks: [label], merged: false })),
    },
    dispose: async () => dispose(),
    ...changed,
  };
  return inputs as unknown as Inputs;
}
