import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { adapterConfigName } from "../checkpoint/folder.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import { editJson, writeText } from "../checkpoint/files.js";

/** Kinds of tasks for which PEFT asks an adapter for a head of its own. */
const withHead: readonly unknown[] = ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"];

/** Writes an adapter's config: as the first input has it, with some changes. A merge has no head in its adapter. */
export async function writeAdapterConfig(
  out: string,
  { folder }: AdaptedCheckpoint,
  changes: Readonly<Record<string, unknown>>,
): Promise<void> {
  const text = await readFile(join(folder, adapterConfigName), "utf8");
  await writeText(
    join(out, adapterConfigName),
    editJson(text, ({ task_type: task = null, ...config }) => ({
      ...config,
      task_type: withHead.includes(task) ? null : task,
      ...changes,
    })),
  );
}
