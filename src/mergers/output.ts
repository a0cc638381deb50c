import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { isRecord, readJsonObject, writeText } from "../checkpoint/files.js";
import { fileNames, mergeFile, type MergeRecord } from "../folder/files.js";
import { clearMerge, hashWritten } from "../folder/output.js";
import { version } from "../package.js";
import { classNamed } from "../inputs/data.js";
import { lineageOf } from "../inputs/lineage.js";
import { notesSection } from "../report/card.js";
import { licenceNote, metadataText } from "../report/metadata.js";
import { escapeMarkdown } from "../report/table.js";

/** Settings of the method as rows of a table. */
function valueRows(values: unknown): string[] {
  if (!isRecord(values)) return [];
  return Object.entries(values)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([name, value]) => `| ${escapeMarkdown(name)} | ${escapeMarkdown(JSON.stringify(value))} |`);
}

/** The class that opens a written model, by its config. */
async function resultClass(out: string): Promise<string> {
  if (!existsSync(join(out, fileNames.config))) return "AutoModel";
  return classNamed(await readJsonObject(join(out, fileNames.config))) ?? "AutoModel";
}

/** Lines of Python that open the result. */
const openingLines = (name: string, isAdapter: boolean): string[] => {
  if (!isAdapter) return [`from transformers import ${name}`, "", `model = ${name}.from_pretrained(".")`];
  return [
    "from peft import PeftModel",
    "from transformers import AutoModel  # or the class that the adapters were trained on",
    "",
    'model = PeftModel.from_pretrained(AutoModel.from_pretrained(BASE), ".")  # BASE: the adapters\' model',
  ];
};

/** README.md of a merge without training. */
async function cardOf(out: string, record: MergeRecord): Promise<string> {
  const { adapter, method, base, models, values, places = {}, notes = [] } = record;
  const folders = models.map((label) => ({ label: basename(label), folder: places[label] ?? label }));
  const ofBase = base === undefined ? [] : [{ label: "base", folder: base }];
  const lineage = await lineageOf([...ofBase, ...folders]);
  const rows = folders.map(({ label }) => `| model | ${escapeMarkdown(label)} |`);
  if (base) rows.unshift(`| base | ${escapeMarkdown(basename(base))} |`);
  const name = `A merge by ${method}`;
  const metadata = { name, adapter: adapter !== undefined, method, lineage, rows: [] };
  const all = [...notes, licenceNote(lineage)].filter((line) => line !== undefined);
  return `${metadataText(metadata)}# ${name}

Made with train-merge ${version}; \`merge.json\` has what it was made of.

| | |
| --- | --- |
${[...rows, ...valueRows(values)].join("\n")}

## Use
\`\`\`python
${openingLines(await resultClass(out), adapter !== undefined).join("\n")}
\`\`\`
${notesSection(all)}`;
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
  await writeText(join(out, fileNames.card), await cardOf(out, record));
}
