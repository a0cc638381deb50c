import { matMul, reshape, slice, tensor1d, tensor2d, tidy, zeros, type Rank } from "@tensorflow/tfjs-core";
import { uploadDeltas, mergeForward } from "../merge/op.js";
import { packRows } from "../merge/packing.js";
import { subtract } from "../merge/source.js";
import {
  type Rates,
  allowed,
  choose,
  equation6,
  placements,
  withTables,
  predict,
  type Budget,
  type PlanOptions,
  type Prediction,
  type PlacementRequest,
} from "../plan/memory.js";
import { entries, sum } from "../plan/shape.js";
import { at } from "../at.js";
import { engineNamed, freeMemory, type EngineName } from "../backend/index.js";
import { storedEntry, type Member } from "../checkpoint/family.js";
import { UserError } from "../errors.js";
import type { MergeOptions } from "../config/options.js";
import type { PreparedTask } from "../evaluate/evaluate.js";
import type { Model } from "../models/types.js";
import type { FamilyShape, StepShape } from "../plan/shape.js";
import { rowTokens } from "../tasks/batches.js";
import { dtypeBytes } from "../tensor/dtype.js";

/** Seconds of the fastest of three runs: the first warms up, and a busy machine slows some. */
async function fastest(work: () => Promise<void>): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < 3; i++) {
    const start = performance.now();
    await work();
    best = Math.min(best, (performance.now() - start) / 1000);
  }
  return best;
}

/** Measures, in well under a second, what a plan's times are made of. Rough: within a factor of two or so. */
export async function calibrate(): Promise<Rates> {
  const size = 512;
  const [a, b] = [zeros<Rank.R2>([size, size]), zeros<Rank.R2>([size, size])];
  const product = await fastest(async () => {
    const out = tidy(() => matMul(a, b));
    await out.data();
    out.dispose();
  });
  const [k, n] = [4, 2 ** 18];
  const host = new Float32Array(k * n).fill(0.1);
  const vectors = Array.from({ length: k }, (_, i) =>
    packRows(host.subarray(i * n, (i + 1) * n), { rows: n / 512, width: 512 }, "f32"),
  );
  const upload = await fastest(async () => {
    const { data } = uploadDeltas(vectors, [0, 1, 2, 3], { rows: n / 512, width: 512 });
    // Engines upload when a tensor is first used.
    const used = tidy(() => slice(reshape(data, [-1]), [0], [1]));
    await used.data();
    data.dispose();
    used.dispose();
  });
  const deltas = uploadDeltas(vectors, [0, 1, 2, 3], { rows: n / 512, width: 512 });
  const [base, c] = [tensor2d(host.subarray(0, n), [n / 512, 512]), tensor1d([0.1, 0.2, 0.3, 0.4])];
  const merge = await fastest(async () => {
    const out = mergeForward(base, deltas, c);
    const end = tidy(() => slice(reshape(out, [-1]), [0], [1]));
    await end.data();
    out.dispose();
    end.dispose();
  });
  for (const t of [a, b, deltas.data, base, c]) t.dispose();
  const minus = await fastest(async () => void subtract(host, host));
  // Files that were just checked lie in the page cache; others come at the disk's own speed, which is not measured.
  const cached = 2e9;
  return {
    flops: (2 * size ** 3) / product,
    upload: (4 * k * n) / upload,
    merge: (4 * n * (k + 2)) / merge,
    read: 1 / (1 / cached + minus / (4 * k * n)),
  };
}

/** What each placement would take for a family, and the one that is taken. */
export interface MemoryPlan {
  readonly family: FamilyShape;
  readonly step: StepShape;
  readonly options: PlanOptions;
  readonly engine: EngineName;
  readonly budget: Budget & { readonly from: string };
  readonly rates: Rates;
  readonly predictions: readonly Prediction[];
  readonly chosen: Prediction;
  /** The user named it. */
  readonly asked: boolean;
  /** The paper's dense copies: all experts at once, and two at a time. */
  readonly equation6: { readonly flat: number; readonly pairwise: number };
}

/** The shape of a family whose model is known. */
export function shapeOf(model: Model, base: Member, experts: number): FamilyShape {
  return {
    experts,
    width: model.width,
    heads: model.heads,
    keptScores: model.keptScores,
    coefficients: model.parameters.size * experts,
    output: model.output?.weight,
    tensors: [...model.parameters].map(([name, shape]) => ({
      name,
      shape,
      table: model.tables.has(name),
      bytes: dtypeBytes[storedEntry(base, name).dtype],
    })),
    blocks: model.blocks.map(({ id, shapes }) => ({ id, names: [...shapes.keys()] })),
  };
}

/** A header's shape with blocks and tables as its model has them, where the header is all that the model reads. */
export function shapeWithModel(described: FamilyShape, model: Model): FamilyShape {
  const names = new Set(described.tensors.map(({ name }) => name));
  if (![...model.parameters.keys()].every((name) => names.has(name))) return described;
  return {
    ...described,
    output: model.output?.weight,
    keptScores: model.keptScores,
    tensors: described.tensors.map((one) => ({ ...one, table: model.tables.has(one.name) })),
    blocks: model.blocks.map(({ id, shapes }) => ({ id, names: [...shapes.keys()] })),
  };
}

export interface PlaceOptions extends PlanOptions {
  readonly request: PlacementRequest;
  readonly memoryBudget?: number | undefined;
  /** Processes that share the machine and the budget. */
  readonly share?: number | undefined;
  /** How fast the machine is; where it is not given, `measure` is asked. */
  readonly rates?: Rates | undefined;
  readonly measure?: (() => Promise<Rates>) | undefined;
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;

type NamedBudget = MemoryPlan["budget"];

/** The memory that a run may take: what the user names, else what the engine has. */
function budgetOf(engine: EngineName, memoryBudget: number | undefined, share: number): NamedBudget {
  const { ownHeap, deviceMemory } = engineNamed(engine);
  const machine = deviceMemory();
  const host = (0.8 * freeMemory()) / share;
  const { shared } = machine;
  // A heap of its own is every process's, and no budget lifts its bounds.
  const own = ownHeap ? machine.bytes : machine.bytes / share;
  if (memoryBudget === undefined) return { device: own, host, shared, from: machine.from };
  const asked = memoryBudget / share;
  return { device: ownHeap ? Math.min(own, asked) : asked, host, shared, from: "--memory-budget" };
}

/** Why there is no placement: the one that takes the least, and what would help. */
function noPlacement(predictions: readonly Prediction[], budget: NamedBudget): UserError {
  const least = at(
    [...predictions].sort((a, b) => a.device - b.device),
    0,
  );
  const blocks = least.blockwise ? " --blocks on" : "";
  return new UserError(
    `no placement fits ${gigabytes(budget.device)} of device memory (${budget.from}) and ` +
      `${gigabytes(budget.host)} of host memory: --residency ${least.residency}${blocks} would take ` +
      `${gigabytes(least.device)} and ${gigabytes(least.host)}; a smaller --micro-batch or --batch-size takes less`,
  );
}

/**
 * Predicts every placement on the running engine and chooses.
 * @throws UserError where none that is allowed fits the budget: the smallest, and what would help
 */
export async function planMemory(
  family: FamilyShape,
  step: StepShape,
  engine: EngineName,
  { request, memoryBudget, share = 1, rates: given, measure = calibrate, ...options }: PlaceOptions,
): Promise<MemoryPlan> {
  const budget = budgetOf(engine, memoryBudget, share);
  const rates = given ?? (await measure());
  const workload = { family, step, options, rates };
  const plain = placements.map((placement) => predict(workload, placement));
  const isNamed = request.residency !== "auto" && request.blocks !== "auto";
  // Who names both knows what they want; a prediction is not a reason to refuse.
  const fitting = isNamed ? allowed(plain, request)[0] : choose(plain, request, budget);
  if (!fitting) throw noPlacement(allowed(plain, request), budget);
  const chosen = withTables(workload, fitting, budget);
  const predictions = plain.map((one) => (one === fitting ? chosen : one));
  const n = sum(family.tensors.map(entries));
  return {
    family,
    step,
    options,
    engine,
    budget,
    rates,
    predictions,
    chosen,
    asked: isNamed,
    equation6: {
      flat: equation6(n, family.experts, family.coefficients),
      pairwise: equation6(n, 2, Math.round((2 * family.coefficients) / family.experts)),
    },
  };
}

/** The most that one step can have to do: every task's longest examples in one batch. */
export function stepShape(
  tasks: readonly PreparedTask[],
  {
    batchSize,
    batchesPerStep,
    microBatch,
  }: Pick<MergeOptions, "batchSize" | "batchesPerStep" | "microBatch">,
): StepShape {
  let tokens = 0;
  let length = 0;
  let together = 0;
  for (const { kind, validation } of tasks) {
    const sizes = validation.map(({ rows }) => rowTokens(...rows)).sort((a, b) => b - a);
    const largest = (count: number) => sizes.slice(0, count).reduce((sum, size) => sum + size, 0);
    tokens += largest(batchSize * batchesPerStep);
    // What is told apart from its whole batch is read in one pass.
    if (kind === "match") together = Math.max(together, largest(batchSize));
    length = Math.max(length, ...validation.map((example) => example.length));
  }
  return { tokens, microBatch: Math.max(microBatch, together), length };
}
