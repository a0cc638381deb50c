import { at } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { compileMerge, type CompileOptions } from "../disk/compile.js";
import { mergeOnDisk } from "../disk/merge.js";
import { checkPartners } from "../disk/partners.js";
import { UserError } from "../errors.js";
import type { Method, ParameterValues } from "../methods/types.js";
import { headTensors } from "../models/layers.js";
import type { HeadNames } from "../models/types.js";
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
  /** Where the inputs are experts of tasks: their heads, which are never merged, and what they are called. */
  readonly heads?: { readonly members: readonly Member[]; readonly names: HeadNames | undefined } | undefined;
}

/**
 * Merges models with a method that trains nothing and writes a Hugging Face folder (adapters are seen
 * as models). No engine is started.
 * @returns what is not merged, a line each
 */
export async function writeMerge(
  out: string,
  merge: DiskMerge,
  hooks: Pick<MergeHooks, "note" | "progress" | "stopping">,
): Promise<string[]> {
  const { method, values, base, inputs, shardSize, threads, statistics, heads } = merge;
  const dtype = chosenDType(merge.dtype);
  const { plan, kept, left } = compileMerge(
    { base, inputs },
    { method: method.name, values, dtype, without: heads ? headTensors(heads.names) : [], statistics },
  );
  const reference = base ?? at(inputs, 0);
  const notes = checkPartners(
    { total: plan.tensors.length, kept, left },
    base ? "the base" : reference.label,
    merge.allowPartial ?? false,
  );
  if (plan.tensors.every(({ copy }) => copy))
    throw new UserError(`${reference.checkpoint.folder}: all models are the same; there is nothing to merge`);
  notes.forEach(hooks.note);
  await mergeOnDisk(plan, out, {
    shardBytes: shardSize,
    threads,
    progress: hooks.progress,
    stopping: hooks.stopping,
  });
  await writeAround(out, reference, dtype);
  if (heads) for (const member of heads.members) await writeHead(out, member, heads.names);
  return notes;
}
