import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { adapterConfigName } from "../checkpoint/adapter.js";
import type { AdaptedCheckpoint } from "../checkpoint/adapted.js";
import { editJson, writeText } from "../checkpoint/files.js";

/** Writes an adapter's config: as the first input has it, with some changes. */
export async function writeAdapterConfig(
  out: string,
  { folder }: AdaptedCheckpoint,
  changes: Readonly<Record<string, unknown>>,
): Promise<void> {
  const text = await readFile(join(folder, adapterConfigName), "utf8");
  await writeText(
    join(out, adapterConfigName),
    editJson(text, (config) => ({ ...config, ...changes })),
  );
}
