import { basename, join } from "node:path";
import { writeText } from "../checkpoint/files.js";
import { fileNames, mergeFile, type MergeRecord } from "../folder/files.js";
import { clearMerge, hashWritten } from "../folder/output.js";
import { version } from "../package.js";
import { notesSection } from "../report/card.js";
import { escapeMarkdown } from "../report/table.js";

function cardOf({ adapter, method, base, models, notes = [] }: MergeRecord): string {
  const rows = models.map((model) => `| model | ${escapeMarkdown(basename(model))} |`);
  if (base) rows.unshift(`| base | ${escapeMarkdown(basename(base))} |`);
  return `---
library_name: ${adapter === undefined ? "transformers" : "peft"}
tags: [merge, train-merge]
---
# A merge by ${method}

Made with train-merge ${version}. \`merge.json\` has the parameters.

| | |
| --- | --- |
${rows.join("\n")}
${notesSection(notes)}`;
}

/**
 * Runs a merge into a folder that nothing of an earlier one is left in. merge.json, by which a later run
 * knows the folder for ours, is there before the weights; the card comes last. A merge that fails
 * leaves neither.
 * @param write returns what else is to be recorded
 */
export async function writeRecorded(
  out: string,
  record: MergeRecord,
  write: () => Promise<Partial<MergeRecord>>,
): Promise<void> {
  await clearMerge(out);
  await mergeFile.write(out, { version, ...record });
  try {
    const more = await write();
    await mergeFile.write(out, { version, ...record, ...more, outputs: await hashWritten(out) });
  } catch (error) {
    await clearMerge(out);
    throw error;
  }
  await writeText(join(out, fileNames.card), cardOf(record));
}
