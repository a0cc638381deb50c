import { createReadStream, existsSync } from "node:fs";
import { mkdir, readFile, rm, stat, readdir, realpath } from "node:fs/promises";
import { join, relative } from "node:path";
import { UserError } from "../errors.js";
import { claimFolder } from "./lock.js";
import { storedEntry, type Member } from "../checkpoint/family.js";
import { atomicFile, editJson, readJson, sha256, writeText } from "../checkpoint/files.js";
import { unwrapped } from "../checkpoint/names.js";
import { unquantised } from "../checkpoint/quantised.js";
import { removeWeights, writeSafetensors, type TensorSource } from "../checkpoint/write.js";
import { headTensors } from "../models/layers.js";
import type { HeadNames } from "../models/types.js";
import type { FloatDType } from "../tensor/dtype.js";
import { adapterConfigName } from "../checkpoint/folder.js";
import {
  coefficientsFile,
  compareFile,
  finetuneFile,
  mergeFile,
  fileNames,
  reproduceFile,
  resultsFile,
  runFile,
  stateFile,
} from "./files.js";
import { headFolder, headPath } from "./places.js";
import { copyCompanions } from "../checkpoint/companions.js";
import { nodeFile, similarityFile, treeFile } from "./tree-files.js";

/** How a config says what type the weights have. */
export const dtypeWords: Readonly<Record<FloatDType, string>> = {
  F32: "float32",
  F16: "float16",
  BF16: "bfloat16",
};

/** Files by which a folder is known to be written by train-merge: only then may a run write over it. */
const ownFiles = [
  resultsFile,
  stateFile,
  nodeFile,
  treeFile,
  similarityFile,
  mergeFile,
  compareFile,
  finetuneFile,
  reproduceFile,
];

async function isOurs(out: string): Promise<boolean> {
  for (const file of ownFiles) {
    const content = await readJson(file.in(out)).catch(() => undefined);
    if (typeof content !== "object" || content === null) continue;
    if (file.marks.every((key) => key in content)) return true;
  }
  return false;
}

/** Whether a folder holds a result that is whole: these are the files that come last. */
export const isFinished = async (out: string): Promise<boolean> =>
  resultsFile.exists(out) ||
  (mergeFile.exists(out) && existsSync(join(out, fileNames.card))) ||
  (await finetuneFile.readIfSound(out))?.scores !== undefined;

/** That a folder holds a finished result, which nobody said may go. */
export const finishedBefore = (out: string): UserError =>
  new UserError(
    `--out ${out}: it holds a finished result; --overwrite replaces it, or choose another folder`,
  );

/** What a write that was cut off by a kill may have left. */
const leftover = /\.[0-9a-f]{8}\.tmp$/;

/** Folders that a run works with and removes. */
const scratchFolders = [fileNames.treated, fileNames.products] as const;

/** Makes a folder in `out` to work with: a later run removes what a kill leaves of it. */
export async function openScratch(out: string, name: (typeof scratchFolders)[number]): Promise<string> {
  const folder = join(out, name);
  await mkdir(folder, { recursive: true });
  await writeText(join(folder, fileNames.scratchMark), "");
  return folder;
}

/** Whether it is one, or what a kill left of making or removing one. */
async function isScratch(out: string, name: string): Promise<boolean> {
  if (!scratchFolders.some((one) => one === name)) return false;
  const inside = await readdir(join(out, name)).catch(() => undefined);
  return (
    inside?.every((file) => leftover.test(file)) === true || inside?.includes(fileNames.scratchMark) === true
  );
}

/** Removes one, its mark last: what a kill leaves of that is still known. */
export async function removeScratch(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => []))
    if (name !== fileNames.scratchMark) await rm(join(folder, name), { recursive: true, force: true });
  await rm(folder, { recursive: true, force: true });
}

/**
 * Makes the output folder, or tidies up the one that an earlier run left.
 * @param inputs folders that are read and must not be written to
 * @param overwrite whether a finished result may be written over
 * @throws UserError where it holds a finished result or what train-merge did not write, or another run writes to it
 */
export async function openOutput(out: string, inputs: readonly string[], overwrite = false): Promise<void> {
  await mkdir(out, { recursive: true });
  const real = await realpath(out);
  for (const input of inputs) {
    if ((await realpath(input)) === real)
      throw new UserError(`--out ${out}: it is the input ${input}; choose another`);
  }
  await claimFolder(real);
  const files = await readdir(out);
  const others: string[] = [];
  for (const file of files) if (!leftover.test(file) && !(await isScratch(out, file))) others.push(file);
  if (others.length > 0 && !(await isOurs(out))) {
    throw new UserError(
      `--out ${out}: the folder is not empty and was not written by train-merge; choose another`,
    );
  }
  if (!overwrite && (await isFinished(out))) throw finishedBefore(out);
  // The folder is ours, and so are these: what a run that was cut off worked with.
  for (const own of scratchFolders) await removeScratch(join(out, own));
  await removeLeftovers(out);
}

/** Removes what a kill left half-written; the nodes of a tree see to their own folders. */
export async function removeLeftovers(out: string): Promise<void> {
  for (const entry of await readdir(out, { withFileTypes: true })) {
    const path = join(out, entry.name);
    if (entry.isFile() && leftover.test(entry.name)) await rm(path);
    else if (entry.isDirectory() && entry.name !== "nodes") await removeLeftovers(path);
  }
}

/** Removes the results of an earlier run: while they are made anew, the folder is not a finished merge. */
export async function clearResults(out: string): Promise<void> {
  await removeFinal(out);
  await removeWeights(out);
}

/**
 * The same for a folder that models are merged into without training: nothing of what stood there
 * belongs to what will.
 */
export async function clearMerge(out: string): Promise<void> {
  await clearResults(out);
  for (const file of [fileNames.config, stateFile.name, fileNames.trainingLog])
    await rm(join(out, file), { force: true });
}

/** What a run writes at its end; a new run in the same folder begins without it. */
const finalFiles: readonly string[] = [
  resultsFile.name,
  fileNames.card,
  runFile.name,
  fileNames.coefficientsCsv,
  coefficientsFile.name,
  fileNames.coefficientsSvg,
  fileNames.coefficientsPng,
  fileNames.report,
  fileNames.tensorboard,
  fileNames.heads,
  fileNames.tasks,
  fileNames.mergekit,
  mergeFile.name,
  adapterConfigName,
];

async function removeFinal(out: string): Promise<void> {
  for (const file of finalFiles) await rm(join(out, file), { force: true, recursive: true });
}

/** Copies a merged model that a node wrote, file by file; an index comes after its shards. */
export async function copyModel(from: string, to: string): Promise<void> {
  const entries = await readdir(from, { recursive: true, withFileTypes: true });
  const files = entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(from, join(entry.parentPath, entry.name)))
    .sort();
  const [indices, others] = [files.filter(isIndex), files.filter((file) => !isIndex(file))];
  for (const file of [...others, ...indices]) {
    await atomicFile(join(to, file), async (write) => {
      const stream: AsyncIterable<Buffer> = createReadStream(join(from, file), { highWaterMark: 1 << 22 });
      for await (const chunk of stream) await write(chunk);
    });
  }
}

const isIndex = (file: string): boolean => file.endsWith(".index.json");

/** Marks the folder as a run under way: its first state is saved, and the results of an earlier run are gone. */
export async function beginRun(out: string, saveFirst: () => Promise<void>): Promise<void> {
  await saveFirst();
  await removeFinal(out);
}

/**
 * Writes what stands beside the weights: the base's config (with the type of the weights, where it was
 * chosen), tokenizer and whatever else is no weight.
 */
export async function writeAround(
  out: string,
  { checkpoint }: Member,
  dtype: FloatDType | undefined,
  changes: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const folder = checkpoint.home ?? checkpoint.folder;
  const { tokenizer } = checkpoint;
  await writeText(
    join(out, fileNames.config),
    editJson(await readFile(join(folder, fileNames.config), "utf8"), ({ torch_dtype: older, ...config }) => ({
      ...unquantised(tokenizer?.config(config) ?? config),
      ...(older !== undefined && { dtype: older }),
      ...changes,
      ...(dtype && { dtype: dtypeWords[dtype] }),
      ...(!dtype && [older, config["dtype"]].includes("float64") && { dtype: dtypeWords.F32 }),
    })),
  );
  await copyCompanions(folder, out, tokenizer?.replaces);
  await tokenizer?.write(out);
}

/** What of a result's files a model is made of, by their names: beside it, and in heads/<task>. */
const modelFiles = /^((adapter_)?(model|config)\b.*|head\.safetensors|tokenizer.*|chat_template\.jinja)$/;
const isOfModel = (path: string): boolean => {
  const [name = "", ...folders] = path.split(/[\\/]/).toReversed();
  const isHead = folders.length === 2 && folders[1] === fileNames.heads;
  return modelFiles.test(name) && (folders.length === 0 || isHead);
};

/** Hashes of a result's files, where they are no more than a gigabyte: more would take as long as to write them. */
export async function hashWritten(out: string): Promise<{ file: string; sha256: string }[]> {
  const files = (await readdir(out, { recursive: true })).filter(isOfModel).sort();
  let size = 0;
  for (const file of files) size += (await stat(join(out, file))).size;
  if (size > 2 ** 30) return [];
  const hashed: { file: string; sha256: string }[] = [];
  for (const file of files) hashed.push({ file, sha256: await sha256(join(out, file)) });
  return hashed;
}

/** Writes a task's head as its expert has it, byte for byte, with the expert's config (label names). */
export async function writeHead(out: string, expert: Member, head: HeadNames | undefined): Promise<void> {
  const folder = headFolder(out, expert.label);
  const plain = unwrapped(expert.checkpoint);
  const sources = headTensors(head)
    .filter((name) => expert.actual.has(name))
    .map((name): TensorSource => {
      const { stored, dtype, shape } = storedEntry(expert, name);
      // Under the expert's own name, without what a wrapper put before it: transformers looks for that.
      return {
        name: plain(stored),
        dtype,
        shape,
        bytes: async () => (await expert.checkpoint.read(stored)).bytes,
      };
    });
  if (head) await writeSafetensors(headPath(out, expert.label), sources);
  const { config } = expert.checkpoint;
  const weight = head && expert.actual.has(head.weight) ? storedEntry(expert, head.weight) : undefined;
  const outputs = weight?.shape[0];
  // transformers takes a config that names no labels for one of two.
  const labels = config["id2label"] === undefined && outputs !== undefined && { num_labels: outputs };
  await writeText(join(folder, fileNames.config), { ...config, ...(outputs !== 2 && labels) });
}
