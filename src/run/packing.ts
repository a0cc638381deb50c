import { evaluateTasks } from "../evaluate/evaluate.js";
import type { Table } from "../merge/table.js";
import { mergeContextOf, type Inputs } from "../inputs/open.js";
import type { MergeHooks } from "../config/options.js";

/** What a packing cost: the error of the task vectors, and the change of the loss. */
export interface PackingCost {
  readonly packing: string;
  /** √(Σ‖τ − packed τ‖² / Σ‖τ‖²) over all layers and experts. */
  readonly error: number;
  readonly layers: readonly { readonly layer: string; readonly error: number }[];
  /** How the base is kept, and √(Σ‖θ − packed θ‖² / Σ‖θ‖²). */
  readonly base?: { readonly packing: string; readonly error: number } | undefined;
  /** Mean cross-entropy over tasks on the validation examples, with packed and with exact task vectors. */
  readonly loss: { readonly packed: number; readonly exact: number };
}

/** ‖error‖ / ‖norm‖ of two sums of squares; 0 of nothing. */
function relativeError(error: number, norm: number): number {
  if (norm === 0) return 0;
  return Math.sqrt(error / norm);
}

/**
 * Measures what a packing costs under some coefficients (float32 costs nothing). Exact vectors are read from files.
 */
export async function packingCost(inputs: Inputs, table: Table, hooks: MergeHooks): Promise<PackingCost> {
  const { vectors, tasks } = inputs;
  const loss = async (source: typeof vectors) => {
    const scores = await evaluateTasks(
      { ...mergeContextOf(inputs), vectors: source, table },
      tasks,
      "validation",
    );
    return scores.reduce((sum, score) => sum + score.loss / scores.length, 0);
  };
  const total = (key: "error" | "norm") => vectors.packingErrors.reduce((sum, layer) => sum + layer[key], 0);
  const cost: PackingCost = {
    packing: vectors.packing,
    ...(vectors.baseError > 0 && { base: { packing: vectors.basePacking, error: vectors.baseError } }),
    error: relativeError(total("error"), total("norm")),
    layers: vectors.packingErrors.map(({ layer, error, norm }) => ({
      layer,
      error: relativeError(error, norm),
    })),
    loss: { packed: await loss(vectors), exact: await loss(vectors.fromFiles()) },
  };
  const [worst] = [...cost.layers].sort((a, b) => b.error - a.error);
  const percent = (x: number) => `${(100 * x).toPrecision(2)} %`;
  const offBy = [
    worst &&
      `packed as ${cost.packing}: the task vectors are off by ${percent(cost.error)} of their norm (most in ` +
        `${worst.layer}: ${percent(worst.error)})`,
    cost.base && `the base as ${cost.base.packing} is off by ${percent(cost.base.error)} of its norm`,
  ];
  hooks.note(
    `${offBy.filter((text) => text !== undefined).join("; ")}; validation loss ${cost.loss.packed.toFixed(4)}, with ` +
      `exact ones ${cost.loss.exact.toFixed(4)}`,
  );
  return cost;
}
