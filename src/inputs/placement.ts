import { deviceMemory, freeMemory, type EngineName } from "../backend/index.js";
import type { Member } from "../checkpoint/family.js";
import { UserError } from "../errors.js";
import type { Model } from "../models/types.js";
import {
  allowed,
  choose,
  equation6,
  placements,
  predict,
  type Budget,
  type PlanOptions,
  type Prediction,
  type Rates,
  type PlacementRequest,
} from "../plan/memory.js";
import { entries, sum, type FamilyShape, type StepShape } from "../plan/shape.js";
import { dtypeBytes } from "../tensor/dtype.js";
import { calibrate } from "./calibrate.js";

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
    coefficients: model.parameters.size * experts,
    tensors: [...model.parameters].map(([name, shape]) => ({
      name,
      shape,
      table: model.tables.has(name),
      bytes: dtypeBytes[base.checkpoint.entry(base.actual.get(name)!)!.dtype],
    })),
    blocks: model.blocks.map(({ id, shapes }) => ({ id, names: [...shapes.keys()] })),
  };
}

export interface PlaceOptions extends PlanOptions {
  readonly request: PlacementRequest;
  readonly memoryBudget?: number | undefined;
  /** Processes that share the machine and the budget. */
  readonly share?: number | undefined;
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;

/**
 * Predicts every placement on the running engine and chooses.
 * @param rates measured here where not given
 * @throws UserError where none that is allowed fits the budget: the smallest, and what would help
 */
export async function planMemory(
  family: FamilyShape,
  step: StepShape,
  engine: EngineName,
  { request, memoryBudget, share = 1, ...options }: PlaceOptions,
  rates?: Rates,
): Promise<MemoryPlan> {
  const machine = deviceMemory(engine);
  const own = engine === "wasm" ? machine.bytes : machine.bytes / share;
  const asked = memoryBudget === undefined ? own : memoryBudget / share;
  // No budget lifts the bounds of WebAssembly's heap.
  const device = engine === "wasm" ? Math.min(own, asked) : asked;
  const budget = {
    device,
    host: (0.8 * freeMemory()) / share,
    shared: machine.shared,
    from: memoryBudget === undefined ? machine.from : "--memory-budget",
  };
  const measured = rates ?? (await calibrate());
  const predictions = placements.map((placement) =>
    predict({ family, step, options, rates: measured }, placement),
  );
  const named = request.residency !== "auto" && request.blocks !== "auto";
  // Who names both knows what they want; a prediction is not a reason to refuse.
  const chosen = named ? allowed(predictions, request)[0] : choose(predictions, request, budget);
  if (!chosen) {
    const least = allowed(predictions, request).reduce((a, b) => (b.device < a.device ? b : a));
    throw new UserError(
      `no placement fits ${gigabytes(budget.device)} of device memory (${budget.from}) and ` +
        `${gigabytes(budget.host)} of host memory: --residency ` +
        `${least.residency}${least.blockwise ? " --blocks on" : ""} would take ` +
        `${gigabytes(least.device)} and ${gigabytes(least.host)}; a smaller --micro-batch or ` +
        "--batch-size takes less",
    );
  }
  const n = sum(family.tensors.map(entries));
  return {
    family,
    step,
    options,
    engine,
    budget,
    rates: measured,
    predictions,
    chosen,
    asked: named,
    equation6: {
      flat: equation6(n, family.experts, family.coefficients),
      pairwise: equation6(n, 2, Math.round((2 * family.coefficients) / family.experts)),
    },
  };
}
