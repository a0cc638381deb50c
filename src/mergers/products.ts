/** LoRA adapters merged as what they are to a model: their products, taken apart again to a product of low rank. */
import { join } from "node:path";
import seedrandom from "seedrandom";
import { at, f32 } from "../at.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import type { Member } from "../checkpoint/family.js";
import { hostTensor } from "../checkpoint/overlay.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import type { MergeHooks } from "../config/options.js";
import { compileMerge } from "../disk/compile.js";
import { mergeOnDisk, type DiskOptions } from "../disk/merge.js";
import type { PlannedTensor } from "../disk/plan.js";
import { UserError } from "../errors.js";
import { fileNames } from "../folder/files.js";
import { openScratch, removeScratch } from "../folder/output.js";
import type { DiskMerge } from "../folder/merge.js";
import { toFloat32, type FloatDType, type HostTensor } from "../tensor/dtype.js";
import { factorise } from "../tensor/factorise.js";
import { transposed } from "../tensor/lowrank.js";
import { writeLora, type AdapterResult, type LoraModule } from "./lora.js";

/** ‖error‖² and ‖change‖² of taking changes apart, summed over modules. */
interface FactorCost {
  error: number;
  norm: number;
}

/** A weight's change, and the adapters' parts of it. */
interface Change {
  readonly name: string;
  readonly rows: number;
  readonly width: number;
  readonly values: Float32Array;
  readonly adapters: readonly AdaptedCheckpoint[];
  /** The rank that is wanted (default: the parts' together). */
  readonly rank: number | undefined;
}

/** A change as a product of low rank. Its error is added to `cost`. */
function takeApart({ name, rows, width, values, adapters, rank }: Change, cost: FactorCost): LoraModule {
  const parts = adapters.flatMap((adapter) => {
    const part = adapter.adapted.get(name);
    return part?.kind === "lora" ? [part] : [];
  });
  const [first] = parts;
  if (!first)
    throw new UserError(
      `${at(adapters, 0).folder}: it holds "${name}" whole, which no adapter of low rank can; use --write model`,
    );
  const own = parts.reduce((sum, part) => sum + part.rank, 0);
  const wanted = Math.min(rank ?? own, rows, width);
  const draw = seedrandom(name);
  const { factors, error, norm } = factorise({ values, rows, width }, wanted, () => 2 * draw() - 1);
  cost.error += error ** 2;
  cost.norm += norm ** 2;
  const { module, transposed: isTransposed } = first;
  let [a, b] = [factors.right, factors.left];
  // A weight that is stored [in, out] has its factors the other way round.
  if (isTransposed)
    [a, b] = [transposed(factors.left, rows, wanted), transposed(factors.right, wanted, width)];
  return {
    module,
    rank: wanted,
    a: hostTensor(a, [wanted, a.length / wanted]),
    b: hostTensor(b, [b.length / wanted, wanted]),
  };
}

/** merged − base, in float32. */
function mergedChange(merged: HostTensor, base: HostTensor): Float32Array {
  const change = Float32Array.from(toFloat32(merged));
  toFloat32(base).forEach((x, i) => (change[i] = f32(change, i) - x));
  return change;
}

export interface ProductMerge extends DiskMerge {
  readonly base: Member;
  readonly rank?: number | undefined;
  readonly dtype: FloatDType;
  readonly adapters: readonly AdaptedCheckpoint[];
  readonly saved?: AdapterResult["saved"];
}

/** Takes every changed weight apart; one weight's change is held at a time. */
async function takeAllApart(
  folder: string,
  changed: readonly PlannedTensor[],
  { base, rank, adapters }: ProductMerge,
  progress: MergeHooks["progress"],
): Promise<{ modules: LoraModule[]; cost: FactorCost }> {
  const file = await openSafetensors(join(folder, "model.safetensors"));
  const cost: FactorCost = { error: 0, norm: 0 };
  const modules: LoraModule[] = [];
  try {
    for (const [n, { name, shape }] of changed.entries()) {
      progress("taking products apart", n, changed.length);
      const values = mergedChange(await file.read(name), await base.checkpoint.read(name));
      const [rows, width] = [at(shape, 0), at(shape, 1)];
      modules.push(takeApart({ name, rows, width, values, adapters, rank }, cost));
    }
  } finally {
    await file.close();
  }
  return { modules, cost };
}

/**
 * Merges the products from disk to disk, in float32, then takes each change apart again. Held: one
 * weight's change.
 * @returns what that cost: ‖error‖ / ‖change‖
 */
export async function mergeProducts(
  out: string,
  merge: ProductMerge,
  disk: DiskOptions,
  hooks: Pick<MergeHooks, "note" | "progress">,
): Promise<number> {
  const { method, values, base, inputs, dtype, adapters } = merge;
  const { plan } = compileMerge({ base, inputs }, { method: method.name, values, dtype: "F32" });
  const changed = plan.tensors.filter(({ copy }) => !copy);
  const folder = await openScratch(out, fileNames.products);
  try {
    await mergeOnDisk({ ...plan, tensors: changed }, folder, { ...disk, shardBytes: Infinity });
    const { modules, cost } = await takeAllApart(folder, changed, merge, hooks.progress);
    await writeLora(out, modules, at(adapters, 0), { dtype, saved: merge.saved });
    const share = cost.norm > 0 ? Math.sqrt(cost.error / cost.norm) : 0;
    hooks.note(
      `written as LoRA of rank ${Math.max(...modules.map(({ rank }) => rank))}: it differs from what ` +
        `${method.name} makes by ${(100 * share).toPrecision(2)} % of its norm; --rank sets the rank, ` +
        "--write model loses nothing",
    );
    return share;
  } finally {
    await removeScratch(folder);
  }
}
