import "@tensorflow/tfjs-backend-cpu";
import { env, ready, setBackend, tensor2d, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";
import { registerGradients } from "../src/backend/kernels.js";
import type { Member } from "../src/checkpoint/family.js";
import type { MergeContext } from "../src/evaluate/baselines.js";
import type { PreparedTask } from "../src/evaluate/evaluate.js";
import { columnOf } from "../src/merge/source.js";
import { loadTaskVectors } from "../src/merge/vectors.js";
import { scaled } from "../src/models/ops.js";
import type { Block, Model, TokenBatch, TokenRow } from "../src/models/types.js";
import type { EncodedExample } from "../src/tasks/batches.js";
import type { Answering } from "../src/tasks/encoders.js";
import type { ModelOptions } from "../src/train/loop.js";

/**
 * The smallest family that can be trained and measured: two blocks of one vector of two numbers each. A row with ids
 * [a, b, …] has the logits [a u₀ v₀, b u₁ v₁], so that what a coefficient does is done in the head.
 */
export async function startToy(): Promise<void> {
  // What startEngine("cpu") comes to, without the other engines.
  // It would say that another engine is faster.
  env().set("PROD", true);
  await setBackend("cpu");
  await ready();
  registerGradients();
}

/** Two numbers for each of the blocks `u` and `v`; a block that is left out is [1, 1] in the base, 0 in an expert. */
export type ToyWeights = Readonly<Partial<Record<"u" | "v", readonly [number, number]>>>;

interface ToyState {
  readonly x: Tensor2D;
}

function block(id: "u" | "v"): Block<ToyState> {
  return {
    id,
    shapes: new Map([[id, [2]]]),
    run: (weights, { x }) => ({ x: scaled(x, weights(id) as Tensor1D) }),
  };
}

/** The rows of a pass, and nothing else. */
const toyBatch = (rows: readonly TokenRow[]): TokenBatch => ({
  rows,
  segments: [],
  ids: Int32Array.from(rows.flatMap(({ ids }) => [...ids])),
  types: new Int32Array(0),
  positions: new Int32Array(0),
  first: new Int32Array(rows.length),
  order: [],
});

export function toyModel(changed: Partial<Model> = {}): Model {
  const model: Model<ToyState, TokenBatch> = {
    parameters: new Map([
      ["u", [2]],
      ["v", [2]],
    ]),
    tables: new Set(),
    width: 2,
    heads: 1,
    vocabulary: 2,
    maxLength: 100,
    blocks: [block("u"), block("v")],
    prepare: toyBatch,
    lookups: () => [],
    start: ({ rows }) => ({
      x: tensor2d(
        rows.map(({ ids: [a = 0, b = 0] }) => [a, b]),
        [rows.length, 2],
      ),
    }),
    carried: ({ x }) => [x],
    carry: (_, [x]) => ({ x: x as Tensor2D }),
    features: ({ x }) => x,
  };
  return { ...(model as Model), ...changed };
}

const plus = (a: readonly [number, number], [x, y]: readonly [number, number] = [0, 0]) =>
  [a[0] + x, a[1] + y] as const;

/** A model of the family, whose file nobody reads. @param deltas what it adds to a base of ones */
export function toyMember(label: string, deltas: ToyWeights, base: ToyWeights = {}): Member {
  const values = (name: string) => {
    const key = name === "u" ? "u" : "v";
    return Float32Array.from(plus(base[key] ?? [1, 1], deltas[key]));
  };
  return {
    label,
    checkpoint: {} as Member["checkpoint"],
    actual: new Map(),
    weights: (name) =>
      Promise.resolve({
        shape: [2],
        values: values(name),
        stored: { dtype: "F32", shape: [2], bytes: new Uint8Array(values(name).buffer) },
      }),
    rows: (name) => Promise.resolve(values(name)),
  };
}

/** A merge of experts, by their task vectors, but for its coefficients. */
export async function toyFamily(
  experts: Readonly<Record<string, ToyWeights>>,
  { base = {}, model = toyModel() }: { base?: ToyWeights; model?: Model } = {},
): Promise<MergeContext & { dispose(): void }> {
  const members = Object.entries(experts).map(([label, deltas]) => toyMember(label, deltas, base));
  const vectors = await loadTaskVectors(
    { base: toyMember("base", {}, base), columns: members.map(columnOf) },
    ["u", "v"],
    { tables: new Set() },
  );
  return { model, vectors, dispose: () => vectors.dispose() };
}

/** An example of one row [a, b, …] and its class. */
export const toyExample = (
  ids: readonly number[],
  label: number,
  more: Partial<Pick<EncodedExample, "length" | "softLabels">> = {},
): EncodedExample => ({ kind: "classify", rows: [{ ids, types: [] }], label, length: ids.length, ...more });

export const toyTask = (
  id: string,
  examples: Pick<PreparedTask, "validation"> & Partial<Pick<PreparedTask, "test" | "tests" | "head">>,
  answering: Answering = { kind: "classify" },
): PreparedTask => ({
  id,
  metrics: [answering.kind === "generate" ? "exact-match" : "accuracy"],
  synthetic: true,
  head: undefined,
  test: [],
  ...examples,
  ...answering,
});

/** A training that is as plain as can be. */
export const toyTraining: ModelOptions = {
  steps: 3,
  lr: 0.1,
  warmup: 0,
  decay: "none",
  weightDecay: 0,
  batchSize: 1,
  gate: "identity",
  init: 0.5,
  holdout: 0,
  loss: "cross-entropy",
  evalEvery: 1,
  saveEvery: 100,
  seed: 0,
  batchesPerStep: 1,
  adaptOn: "validation",
  microBatch: 2048,
};
