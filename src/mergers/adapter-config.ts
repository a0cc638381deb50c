import { readFile } from "node:fs/promises";
import { basename, isAbsolute, join } from "node:path";
import { adapterConfigName } from "../checkpoint/folder.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import { editJson, writeText } from "../checkpoint/files.js";

/** Kinds of tasks for which PEFT asks an adapter for a head of its own. */
const withHead: readonly unknown[] = ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"];

/** A base by its id; where the adapter names a folder of somebody's machine, by that folder's name. */
const portableName = (name: unknown): unknown =>
  typeof name === "string" && (isAbsolute(name) || /^\.|\\/.test(name)) ? basename(name) : name;

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
      base_model_name_or_path: portableName(config["base_model_name_or_path"]),
      modules_to_save: null,
      task_type: withHead.includes(task) ? null : task,
      ...(hasHeads && { modules_to_save: saved, task_type: task }),
      ...changes,
    })),
  );
}
