import { at } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import { compileMerge, type CompileOptions } from "../disk/compile.js";
import { mergeOnDisk } from "../disk/merge.js";
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
  readonly statistics?: CompileOptions["statistics"];
  /** Where the inputs are experts of tasks: their heads, which are never merged, and what they are called. */
  readonly heads?: { readonly members: readonly Member[]; readonly names: HeadNames | undefined } | undefined;
}

type CompiledMerge = ReturnType<typeof compileMerge>;

/** Names of tensors for a message: the first three. */
export function someOf(names: readonly string[]): string {
  return `${names.slice(0, 3).join(", ")}${names.length > 3 ? " …" : ""}`;
}

/** Says which tensors are not merged: those that one model alone has, or that are no float of one shape in all. */
function noteUnmerged(
  { tensors, kept, left }: Pick<CompiledMerge, "kept" | "left"> & Pick<CompiledMerge["plan"], "tensors">,
  { name, folder }: { readonly name: string; readonly folder: string },
  note: MergeHooks["note"],
): void {
  if (tensors.every(({ copy }) => copy))
    note(`no tensor is a float of one shape in all models: the result is ${folder} itself`);
  else if (kept.length) {
    const named = someOf(kept.map((one) => `${one.name} (${one.why})`));
    note(`${kept.length} of ${tensors.length} tensors are copied unchanged from ${name}: ${named}`);
  }
  if (left.length) note(`${left.length} tensors that ${name} does not have are left out: ${someOf(left)}`);
}

/**
 * Merges models with a method that trains nothing and writes a Hugging Face folder (adapters are seen
 * as models). No engine is started.
 */
export async function writeMerge(
  out: string,
  merge: DiskMerge,
  hooks: Pick<MergeHooks, "note" | "progress" | "stopping">,
): Promise<void> {
  const { method, values, base, inputs, shardSize, threads, statistics, heads } = merge;
  const dtype = chosenDType(merge.dtype);
  const { plan, kept, left } = compileMerge(
    { base, inputs },
    { method: method.name, values, dtype, without: heads ? headTensors(heads.names) : [], statistics },
  );
  const reference = base ?? at(inputs, 0);
  noteUnmerged(
    { tensors: plan.tensors, kept, left },
    { name: base ? "the base" : reference.label, folder: reference.checkpoint.folder },
    hooks.note,
  );
  await mergeOnDisk(plan, out, {
    shardBytes: shardSize,
    threads,
    progress: hooks.progress,
    stopping: hooks.stopping,
  });
  await writeAround(out, reference, dtype);
  if (heads) for (const member of heads.members) await writeHead(out, member, heads.names);
}
