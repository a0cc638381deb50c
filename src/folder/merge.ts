import { at } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { compileMerge, type CompileOptions } from "../disk/compile.js";
import { mergeEachOnDisk, mergeOnDisk } from "../disk/merge.js";
import { checkPartners } from "../disk/partners.js";
import type { MergePlan } from "../disk/plan.js";
import { UserError } from "../errors.js";
import type { Method, ParameterValues } from "../methods/types.js";
import { headTensors } from "../models/layers.js";
import type { HeadNames, Model } from "../models/types.js";
import { chosenDType, type FloatDType } from "../tensor/dtype.js";
import type { MergeHooks } from "../config/options.js";
import { writeAround, writeHead } from "./output.js";

export interface DiskMerge {
  readonly method: Method;
  readonly values: ParameterValues;
  readonly base?: Member | undefined;
  readonly inputs: readonly Member[];
  readonly dtype: FloatDType | "auto";
  readonly shardSize: number;
  readonly threads?: number | undefined;
  /** Goes on where tensors of the backbone have no partner. */
  readonly allowPartial?: boolean | undefined;
  readonly statistics?: CompileOptions["statistics"];
  /**
   * What the model reads, where it is known to be run afterwards: what else the base has (a CLIP's text tower beside
   * experts that are vision towers) is copied without asking.
   */
  readonly reads?: Model["parameters"] | undefined;
  /** Where the inputs are experts of tasks: their heads, which are never merged, and what they are called. */
  readonly heads?: { readonly members: readonly Member[]; readonly names: HeadNames | undefined } | undefined;
}

/** A merge that was planned and checked: nothing of it is written yet. */
export interface PlannedMerge {
  readonly plan: MergePlan;
  /** Whose config and files stand beside the weights. */
  readonly reference: Member;
  /** What is not merged, a line each. */
  readonly notes: readonly string[];
}

/** Plans a merge from headers. @throws UserError where it would be none */
export function planMerge(merge: DiskMerge): PlannedMerge {
  const { method, values, base, inputs, statistics, heads, reads } = merge;
  const without = heads ? headTensors(heads.names) : [];
  const dtype = chosenDType(merge.dtype);
  const options = { method: method.name, values, dtype, without, statistics };
  const { plan, kept, left } = compileMerge({ base, inputs }, options);
  const reference = base ?? at(inputs, 0);
  const notes = checkPartners(
    { total: plan.tensors.length, kept, left, reads },
    base ? "the base" : reference.label,
    merge.allowPartial ?? false,
  );
  if (plan.tensors.every(({ copy }) => copy))
    throw new UserError(`${reference.checkpoint.folder}: all models are the same; there is nothing to merge`);
  return { plan, reference, notes };
}

/** Writes a planned merge as a Hugging Face folder. No engine is started. */
export async function writePlanned(
  out: string,
  { plan, reference }: PlannedMerge,
  { dtype, shardSize, threads, heads }: Pick<DiskMerge, "dtype" | "shardSize" | "threads" | "heads">,
  { progress, stopping }: Pick<MergeHooks, "progress" | "stopping">,
): Promise<void> {
  await mergeOnDisk(plan, out, { shardBytes: shardSize, threads, progress, stopping });
  await writeAround(out, reference, chosenDType(dtype));
  if (heads) for (const member of heads.members) await writeHead(out, member, heads.names);
}

/** Writes a result for each input, each as a folder of its own, in one going over. */
export async function writeEach(
  outs: readonly string[],
  merge: DiskMerge,
  { note, progress, stopping }: Pick<MergeHooks, "note" | "progress" | "stopping">,
): Promise<void> {
  const { plan, reference, notes } = planMerge(merge);
  notes.forEach(note);
  const { shardSize: shardBytes, threads } = merge;
  await mergeEachOnDisk(plan, outs, { shardBytes, threads, progress, stopping });
  for (const out of outs) await writeAround(out, reference, chosenDType(merge.dtype));
}

/** Merges models with a method that trains nothing (adapters are seen as models), and says what is not merged. */
export async function writeMerge(
  out: string,
  merge: DiskMerge,
  hooks: Pick<MergeHooks, "note" | "progress" | "stopping">,
): Promise<void> {
  const planned = planMerge(merge);
  planned.notes.forEach(hooks.note);
  await writePlanned(out, planned, merge, hooks);
}
