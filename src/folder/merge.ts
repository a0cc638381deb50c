import type { Member } from "../checkpoint/family.js";
import { compileMerge, type CompileOptions } from "../disk/compile.js";
import { mergeOnDisk } from "../disk/merge.js";
import type { Method, ParameterValues } from "../methods/types.js";
import { headTensors } from "../models/head.js";
import type { HeadNames } from "../models/types.js";
import type { FloatDType } from "../tensor/dtype.js";
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
  const dtype = merge.dtype === "auto" ? undefined : merge.dtype;
  const { plan, kept, left } = compileMerge(
    { base, inputs },
    { method: method.name, values, dtype, without: heads ? headTensors(heads.names) : [], statistics },
  );
  if (plan.tensors.every(({ copy }) => copy))
    hooks.note(
      "no tensor is a float of one shape in all models: the result is " +
        `${(base ?? inputs[0]!).checkpoint.folder} itself`,
    );
  else if (kept.length) {
    const named = kept.slice(0, 3).map(({ name, why }) => `${name} (${why})`);
    const source = base ? "the base" : inputs[0]!.label;
    hooks.note(
      `${kept.length} of ${plan.tensors.length} tensors are taken over from ${source}: ` +
        `${named.join(", ")}${kept.length > 3 ? " …" : ""}`,
    );
  }
  if (left.length)
    hooks.note(
      `${left.length} tensors are left out, which ${base ? "the base" : inputs[0]!.label} has ` +
        `not: ${left.slice(0, 3).join(", ")}${left.length > 3 ? " …" : ""}`,
    );
  await mergeOnDisk(plan, out, {
    shardBytes: shardSize,
    threads,
    progress: hooks.progress,
    stopping: hooks.stopping,
  });
  await writeAround(out, base ?? inputs[0]!, dtype);
  for (const member of heads?.members ?? []) await writeHead(out, member, heads!.names);
}
