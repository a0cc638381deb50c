import { rm } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { at, lookUp } from "../at.js";
import { checkTogether } from "../checkpoint/belonging.js";
import type { Member } from "../checkpoint/family.js";
import type { TokenizerChoice } from "../checkpoint/joint-vocabulary.js";
import { readYamlDocuments, type YamlDocument } from "../config/yaml.js";
import { whileHashing, type ReadFiles } from "../disk/hashes.js";
import { mergeOnDisk } from "../disk/merge.js";
import type { MergePlan } from "../disk/plan.js";
import { checkPartners } from "../disk/partners.js";
import { UserError } from "../errors.js";
import { fileNames, mergeFile } from "../folder/files.js";
import { finishedBefore, isFinished, openOutput, writeAround } from "../folder/output.js";
import { compileMergekit, type Compiled } from "../mergekit/compile.js";
import { leadOf, readMergekit, type MergekitFile } from "../mergekit/file.js";
import { version } from "../package.js";
import { withMembers, type NamedFolder } from "./members.js";
import { hasTokenizer, writeChatTemplate } from "../checkpoint/chat-template.js";
import { chatTemplateOf } from "./chat-template.js";
import { modelNames, namedFolder, tokenizerOf, type FileHooks, type ModelPlaces } from "./mergekit-models.js";
import type { ModelsMerge } from "./models.js";
import { writeRecorded } from "./output.js";

export type FileMerge = Pick<
  ModelsMerge,
  "out" | "shardSize" | "threads" | "allowPartial" | "allowMismatch" | "strict" | "overwrite" | "dequantise"
> & {
  readonly seed: number;
};

/** One merge of a file, read and checked. */
interface FileDocument {
  readonly file: MergekitFile;
  readonly notes: readonly string[];
  readonly document: YamlDocument;
}

function readDocument(document: YamlDocument, path: string): FileDocument {
  const read = readMergekit(document.value, { where: path, lineOf: document.lineOf });
  const doubled = document.doubled.map(
    (line) => `${path}: ${line}: the key stands twice; the last counts, as in mergekit`,
  );
  return { ...read, notes: [...doubled, ...read.notes], document };
}

/** What one merge of a file is made from. */
interface OpenedDocument {
  readonly document: FileDocument;
  readonly folders: readonly NamedFolder[];
  readonly opened: readonly Member[];
  readonly tokenizer: TokenizerChoice | undefined;
  /** What was done to tokens. */
  readonly ofTokens: readonly string[];
}

/** A merge that was planned and checked. */
interface PlannedDocument extends Omit<Compiled, "kept" | "left" | "notes"> {
  readonly chatTemplate: string | undefined;
  readonly notes: readonly string[];
}

async function planDocument(
  { document: { file, notes: read, document }, folders, opened, ofTokens }: OpenedDocument,
  merge: FileMerge,
  path: string,
): Promise<PlannedDocument> {
  const members = new Map(opened.map((one) => [one.label, one]));
  const base = opened.find(({ label }) => label === file.base_model);
  const sliced = file.modules.some(({ slices }) => slices);
  const belonging = await checkTogether(
    { first: at(opened, 0), members: opened, base: sliced ? undefined : base },
    { ...merge, sliced, namedPairs: true },
  );
  const place = { where: path, lineWhere: document.lineWhere };
  const compiled = compileMergekit(file, (name) => lookUp(members, name), place, merge.seed);
  const { plan, first, kept, left } = compiled;
  const whole = { total: plan.tensors.length, kept, left };
  const unmerged = [...compiled.notes, ...checkPartners(whole, first.label, merge.allowPartial ?? false)];
  const line = document.lineWhere("chat_template", undefined);
  const homes = folders.map(({ folder, on }) => on ?? folder);
  let chatTemplate = await chatTemplateOf(file.chat_template, homes, `${path}: line ${line}`);
  const { checkpoint } = first;
  if (chatTemplate !== undefined && !hasTokenizer(checkpoint.home ?? checkpoint.folder)) {
    unmerged.push(`${path}: line ${line}: chat_template: it is not written: there is no tokenizer`);
    chatTemplate = undefined;
  }
  return { ...compiled, chatTemplate, notes: [...read, ...ofTokens, ...belonging, ...unmerged] };
}

/** Where merges of a file lie that others of the same file are made from. */
const partsOf = (out: string): string => `${resolve(out)}.${fileNames.parts}`;

/** Writes one merge of a file from its opened models. */
async function writeDocument(
  given: OpenedDocument,
  files: ReadFiles,
  merge: FileMerge,
  { path, known, hooks }: ModelPlaces,
): Promise<void> {
  const { out, shardSize, threads } = merge;
  const { document, folders, tokenizer } = given;
  const { plan, first, dtype, changes, chatTemplate, notes } = await planDocument(given, merge, path);
  const read = folders.map(({ folder }) => folder);
  // What other merges of the file made is gone when all is done.
  const stays = (folder: string): boolean => !resolve(folder).startsWith(partsOf(out) + sep);
  await openOutput(out, read, merge.overwrite);
  notes.forEach(hooks.note);
  const record = {
    method: document.file.merge_method,
    from: resolve(path),
    models: folders.map(({ label }) => label),
    places: Object.fromEntries(
      [...known].filter(([, folder]) => stays(folder)).map(([name, folder]) => [name, resolve(folder)]),
    ),
    seed: merge.seed,
    ...(notes.length && { notes }),
    ...(tokenizer && { tokenizer }),
  };
  const { progress, stopping } = hooks;
  const write = async () => {
    await mergeOnDisk(plan, out, { shardBytes: shardSize, threads, progress, stopping });
    await writeAround(out, first, dtype, changes);
    if (chatTemplate !== undefined) await writeChatTemplate(out, chatTemplate);
  };
  const all = [
    { folder: dirname(path), files: [basename(path)] },
    ...files.read.filter(({ folder }) => stays(folder)),
  ];
  await writeRecorded(out, record, () => whileHashing({ ...files, read: all }, threads, write));
}

/** Opens what one merge of a file is made from, for as long as `run` takes. */
async function withDocument<T>(
  document: FileDocument,
  dequantise: boolean | undefined,
  places: ModelPlaces,
  run: (opened: OpenedDocument, files: ReadFiles) => Promise<T>,
): Promise<T> {
  const { file } = document;
  const models = modelNames(file);
  const folders: NamedFolder[] = [];
  for (const name of models) folders.push(await namedFolder(name, places));
  const reference = Math.max(0, models.indexOf(leadOf(file)));
  const tokenizer = await tokenizerOf(file, places);
  const opening = {
    reference,
    hasBase: Boolean(file.base_model),
    dequantise,
    tokenizer,
  };
  return withMembers(folders, opening, (opened, files, ofTokens) =>
    run({ document, folders, opened, tokenizer, ofTokens }, files),
  );
}

/** Runs one merge of a file. */
const mergeDocument = (document: FileDocument, merge: FileMerge, places: ModelPlaces): Promise<void> =>
  withDocument(document, merge.dequantise, places, (opened, files) =>
    writeDocument(opened, files, merge, places),
  );

const readDocuments = async (path: string): Promise<FileDocument[]> =>
  (await readYamlDocuments(path)).map((document) => readDocument(document, path));

/** What a file was merged with. */
export interface PlannedAnew {
  /** Folders of its models, by the names that it gives them. */
  readonly places: Readonly<Record<string, string>>;
  readonly seed: number;
}

/**
 * Plans the merge of a file anew, of models where they lie. Nothing is written.
 * @param run is given the plan, with the models open
 * @returns undefined for a file of several merges: what the last is made from is gone
 */
export async function withPlanOf<T>(
  path: string,
  { places, seed }: PlannedAnew,
  run: (plan: MergePlan) => Promise<T>,
): Promise<T | undefined> {
  const [document, ...others] = await readDocuments(path);
  if (!document || others.length) return undefined;
  const hooks = { note() {}, progress() {}, stopping: () => false };
  const known = new Map(Object.entries(places));
  const merge = { out: "", shardSize: Infinity, seed, allowPartial: true, allowMismatch: true };
  return withDocument(document, true, { path, known, hooks, isRecorded: true }, async (opened) =>
    run((await planDocument(opened, merge, path)).plan),
  );
}

/** The documents of a file in an order in which each comes after those that it names. The result is the last. */
function inOrder(documents: readonly FileDocument[], path: string): FileDocument[] {
  const final = documents.filter(({ file }) => !file.name);
  if (final.length > 1) throw new UserError(`${path}: of several documents all but one must have a name`);
  const byName = new Map(documents.map((one) => [one.file.name, one]));
  if (byName.size !== documents.length) throw new UserError(`${path}: two of its documents have one name`);
  const ordered: FileDocument[] = [];
  const begun = new Set<FileDocument>();
  const add = (one: FileDocument): void => {
    if (ordered.includes(one)) return;
    if (begun.has(one)) throw new UserError(`${path}: ${one.file.name}: it is made from itself`);
    begun.add(one);
    for (const named of modelNames(one.file).flatMap((name) => name.split("+"))) {
      const other = byName.get(named);
      if (other) add(other);
    }
    ordered.push(one);
  };
  add(final[0] ?? at(documents, -1));
  return ordered;
}

/**
 * Runs a mergekit file. Of several documents (mergekit-multi) those with names are merged first, beside the output
 * folder and for as long as it takes.
 */
export async function mergeByMergekitFile(path: string, merge: FileMerge, hooks: FileHooks): Promise<void> {
  const documents = await readDocuments(path);
  if (documents.length === 0) throw new UserError(`${path}: the file is empty`);
  const [final, ...others] = inOrder(documents, path).toReversed();
  const known = new Map<string, string>();
  const places = { path, known, hooks };
  if (!final) return;
  if (others.length === 0) {
    await mergeDocument(final, merge, places);
    return;
  }
  const { out } = merge;
  if (!merge.overwrite && (await isFinished(out))) throw finishedBefore(out);
  // Beside the output: what stands in that is touched when all is merged, and not before.
  const parts = partsOf(out);
  await openOutput(parts, [], true);
  // What a kill left.
  await rm(parts, { recursive: true, force: true });
  try {
    // By this the next run knows the folder for ours.
    await mergeFile.write(parts, { version, method: final.file.merge_method, models: [] });
    let count = 0;
    for (const one of others.toReversed()) {
      const part = join(parts, String(count++));
      await mergeDocument(one, { ...merge, out: part, overwrite: true }, places);
      known.set(one.file.name ?? "", part);
    }
    await mergeDocument(final, merge, places);
  } finally {
    await rm(parts, { recursive: true, force: true });
  }
}
