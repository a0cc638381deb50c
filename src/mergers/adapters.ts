import { at } from "../at.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import type { Member } from "../checkpoint/family.js";
import type { MergeHooks } from "../config/options.js";
import type { DiskMerge } from "../folder/merge.js";
import { isTreated } from "../methods/pipeline.js";
import { chosenDType } from "../tensor/dtype.js";
import { headsAlike, mergeHeads } from "./heads.js";
import { mergeIa3, writeLinearIa3 } from "./ia3.js";
import { mergeStackedLora, writeLinearLora, type AdapterResult, type MethodUse } from "./lora.js";
import { mergeProducts } from "./products.js";

/** A table's coefficients of one weight, an expert each. */
export type CoefficientsOf = (weight: string) => Float64Array;

/**
 * Writes Σ c_i · adapter_i as one adapter, with a coefficient for each module and expert. LoRA: the
 * ranks add up, nothing is lost.
 */
export async function writeLinearAdapter(result: AdapterResult, coefficients: CoefficientsOf): Promise<void> {
  if (at(result.adapters, 0).adapter.kind === "lora") await writeLinearLora(result, coefficients);
  else await writeLinearIa3(result, coefficients);
}

/**
 * Merges adapters with a method that trains nothing into an adapter. (IA)³ vectors are merged entry by
 * entry, the base being ones. LoRA: a method that weights whole inputs takes the adapters side by side;
 * any other sees the products, never A and B apart, and what it makes is taken apart again to a product
 * of `rank` (default: the inputs' ranks together).
 * @returns what taking apart cost: ‖error‖ / ‖change‖, where it was done
 */
export async function mergeAdapters(
  out: string,
  merge: DiskMerge & { readonly base: Member; readonly rank?: number | undefined },
  adapters: readonly AdaptedCheckpoint[],
  hooks: Pick<MergeHooks, "note" | "progress" | "stopping">,
): Promise<number | undefined> {
  const { method, values, base, inputs, threads, shardSize } = merge;
  const dtype = chosenDType(merge.dtype) ?? "F32";
  const use: MethodUse = { method, values, labels: inputs.map(({ label }) => label) };
  const disk = { shardBytes: shardSize, threads, progress: hooks.progress, stopping: hooks.stopping };
  const saved = await mergeHeads(out, headsAlike(merge, adapters), { ...use, inputs, dtype }, disk);
  const result: AdapterResult = { out, base: base.checkpoint, adapters, dtype, saved };
  if (at(adapters, 0).adapter.kind === "ia3") {
    await mergeIa3(result, use, disk);
    return undefined;
  }
  if (method.linear && !isTreated(values) && merge.rank === undefined) {
    await mergeStackedLora(result, use);
    return undefined;
  }
  return mergeProducts(out, { ...merge, dtype, adapters, saved }, disk, hooks);
}
