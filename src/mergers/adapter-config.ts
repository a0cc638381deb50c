import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { adapterConfigName } from "../checkpoint/folder.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import { editJson, writeText } from "../checkpoint/files.js";

/** Kinds of tasks for which PEFT asks an adapter for a head of its own. */
const withHead: readonly unknown[] = ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"];

/**
 * Writes an adapter's config: as the first input has it, with some changes.
 * @param hasHeads whether it holds the heads that PEFT asks for by its task type; else it is of none
 */
export async function writeAdapterConfig(
  out: string,
  { folder }: AdaptedCheckpoint,
  hasHeads: boolean,
  changes: Readonly<Record<string, unknown>>,
): Promise<void> {
  const text = await readFile(join(folder, adapterConfigName), "utf8");
  await writeText(
    join(out, adapterConfigName),
    editJson(text, ({ task_type: task = null, modules_to_save: saved = null, ...config }) => ({
      ...config,
      modules_to_save: null,
      task_type: withHead.includes(task) ? null : task,
      ...(hasHeads && { modules_to_save: saved, task_type: task }),
      ...changes,
    })),
  );
}
