import { join } from "node:path";
import { openMember, type Member } from "../checkpoint/family.js";
import { writeText } from "../checkpoint/files.js";
import { treatedMethod } from "../methods/treated.js";
import { resolveValues } from "../methods/values.js";
import { writeMerge } from "../folder/merge.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import type { OpenedModels } from "./models.js";

/**
 * TSV-M's sums are at their best at one to two times themselves, and coefficients stay below 1: task vectors that went
 * through it are kept at twice their size.
 */
const scales: Partial<Record<MergeOptions["treat"], number>> = { "tsv-m": 2 };

/**
 * Writes every expert with its task vector treated, in float32, to treated/<task> in the output folder,
 * and opens them: what coefficients are then trained on, with every residency.
 */
export async function treatExperts(
  out: string,
  { family: { base, experts }, plain, canonical }: OpenedModels,
  { treat, trim, dareP, seed, shardSize }: MergeOptions,
  { progress }: Pick<MergeHooks, "progress">,
): Promise<Member[]> {
  const opened: Member[] = [];
  try {
    for (const [which, { label, checkpoint }] of experts.entries()) {
      const folder = join(out, "treated", label);
      const values = resolveValues(
        treatedMethod,
        {
          which,
          by: treat,
          density: trim,
          dareP: treat === "dare" ? dareP : 0,
          scale: scales[treat] ?? 1,
          seed,
        },
        experts.length,
      );
      await writeMerge(
        folder,
        {
          method: treatedMethod,
          values,
          base,
          inputs: experts,
          dtype: "F32",
          shardSize,
          reads: plain.parameters,
        },
        { progress, note: () => {}, stopping: () => false },
      );
      await writeText(join(folder, "config.json"), checkpoint.config);
      opened.push(await openMember(label, folder, canonical));
    }
    return opened;
  } catch (error) {
    for (const { checkpoint } of opened) await checkpoint.close();
    throw error;
  }
}
