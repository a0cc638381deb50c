import { join } from "node:path";
import { at } from "../at.js";
import { openMember, type Member } from "../checkpoint/family.js";
import { writeText } from "../checkpoint/files.js";
import { treatedMethod } from "../methods/treated.js";
import { resolveValues } from "../methods/values.js";
import { openScratch, removeScratch } from "../folder/output.js";
import { writeEach } from "../folder/merge.js";
import { fileNames } from "../folder/files.js";
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
  { progress, stopping }: Pick<MergeHooks, "progress" | "stopping">,
): Promise<Member[]> {
  const values = resolveValues(
    treatedMethod,
    { by: treat, density: trim, dareP: treat === "dare" ? dareP : 0, scale: scales[treat] ?? 1, seed },
    experts.length,
  );
  const scratch = await openScratch(out, fileNames.treated);
  const folders = experts.map(({ label }) => join(scratch, label));
  const merge = { method: treatedMethod, values, base, inputs: experts, dtype: "F32", shardSize } as const;
  const opened: Member[] = [];
  try {
    await writeEach(folders, { ...merge, reads: plain.parameters }, { progress, stopping, note: () => {} });
    for (const [i, { label, checkpoint }] of experts.entries()) {
      const folder = at(folders, i);
      await writeText(join(folder, "config.json"), checkpoint.config);
      opened.push(await openMember(label, folder, canonical));
    }
    return opened;
  } catch (error) {
    for (const { checkpoint } of opened) await checkpoint.close();
    await removeScratch(scratch);
    throw error;
  }
}
