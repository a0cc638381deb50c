import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { at, lookUp } from "../at.js";
import { checkTogether } from "../checkpoint/belonging.js";
import { isAdapter } from "../checkpoint/folder.js";
import type { TokenizerChoice } from "../checkpoint/joint-vocabulary.js";
import type { MergeHooks } from "../config/options.js";
import { readYamlDocuments, type YamlDocument } from "../config/yaml.js";
import { whileHashing } from "../disk/hashes.js";
import { mergeOnDisk } from "../disk/merge.js";
import { checkPartners } from "../disk/partners.js";
import { UserError } from "../errors.js";
import { fileNames, mergeFile } from "../folder/files.js";
import { finishedBefore, isFinished, openOutput, writeAround } from "../folder/output.js";
import { fetchModel, hubId } from "../hub/hub.js";
import { compileMergekit } from "../mergekit/compile.js";
import { readMergekit, type MergekitFile } from "../mergekit/file.js";
import { version } from "../package.js";
import { withMembers, type NamedFolder } from "./members.js";
import type { ModelsMerge } from "./models.js";
import { writeRecorded } from "./output.js";

/** Every model that the file names, once. */
function modelNames({ base_model: base, models, slices }: MergekitFile): string[] {
  const named = [
    base,
    ...(models ?? []).map(({ model }) => model),
    ...(slices ?? []).flatMap((slice) => [slice.base_model, ...slice.sources.map(({ model }) => model)]),
  ];
  return [...new Set(named.filter((name) => typeof name === "string"))];
}

/** The model whose config and tokenizer the result gets. */
function leadOf({ base_model: base, models, slices }: MergekitFile): string {
  const [slice] = slices ?? [];
  return slice?.base_model ?? base ?? slice?.sources[0]?.model ?? models?.[0]?.model ?? "";
}

type FileHooks = Pick<MergeHooks, "note" | "progress" | "stopping">;

/** Where the models of a file are looked for. */
interface ModelPlaces {
  /** The file. */
  readonly path: string;
  /** Merges of the same file, by name. */
  readonly made: ReadonlyMap<string, string>;
  readonly hooks: FileHooks;
}

/** Where a model lies: a merge of the same file, a folder as it stands or beside the file, or the hub's cache. */
async function findModel(name: string, { path, made, hooks }: ModelPlaces): Promise<string> {
  // Of a folder a revision says nothing.
  const [plain = name] = name.split("@");
  const folders = [name, plain].flatMap((one) => [made.get(one), one, join(dirname(path), one)]);
  const found = folders.find((folder) => folder !== undefined && existsSync(folder));
  if (found !== undefined) return found;
  const id = hubId(name);
  if (!id)
    throw new UserError(
      `${path}: model ${name}: there is no such folder here or beside the file, and it is no id of the hub (org/name)`,
    );
  const { folder, commit } = await fetchModel(id, hooks);
  hooks.note(`${name}: commit ${commit}`);
  return folder;
}

/** A model as mergekit writes it: a folder or an id, or "model+adapter". */
async function namedFolder(name: string, places: ModelPlaces): Promise<NamedFolder> {
  const [model = name, adapter, ...rest] = name.split("+");
  if (adapter === undefined || existsSync(name))
    return { label: name, folder: await findModel(name, places) };
  const folder = await findModel(adapter, places);
  if (rest.length || !isAdapter(folder))
    throw new UserError(`${places.path}: model ${name}: after the + must stand the folder of one adapter`);
  return { label: name, folder, on: await findModel(model, places) };
}

type FileMerge = Pick<
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

/** Whose tokens the result has, a model's by its folder. */
async function tokenizerOf(
  { tokenizer, base_model: base }: MergekitFile,
  places: ModelPlaces,
): Promise<TokenizerChoice | undefined> {
  if (!tokenizer || tokenizer.source === "union") return tokenizer;
  if (tokenizer.source === "base" || tokenizer.source === base) return { ...tokenizer, source: "base" };
  const [model = ""] = tokenizer.source.split("+");
  return { ...tokenizer, source: await findModel(model, places) };
}

/** Runs one merge of a file. */
async function mergeDocument(
  { file, notes: read, document }: FileDocument,
  merge: FileMerge,
  places: ModelPlaces,
): Promise<void> {
  const { out, shardSize, threads, seed } = merge;
  const { path, hooks } = places;
  const models = modelNames(file);
  const folders: NamedFolder[] = [];
  for (const name of models) folders.push(await namedFolder(name, places));
  const reference = Math.max(0, models.indexOf(leadOf(file)));
  const tokenizer = await tokenizerOf(file, places);
  const hasBase = Boolean(file.base_model);
  await withMembers(
    folders,
    { reference, hasBase, dequantise: merge.dequantise, tokenizer },
    async (opened, files, ofTokens) => {
      const members = new Map(opened.map((one) => [one.label, one]));
      const base = opened.find(({ label }) => label === file.base_model);
      const sliced = Boolean(file.slices);
      const belonging = await checkTogether(
        { first: at(opened, 0), members: opened, base: sliced ? undefined : base },
        { ...merge, sliced },
      );
      const place = { where: path, lineWhere: document.lineWhere };
      const { plan, first, dtype, changes, kept, left } = compileMergekit(
        file,
        (name) => lookUp(members, name),
        place,
        seed,
      );
      const whole = { total: plan.tensors.length, kept, left };
      const notes = [
        ...read,
        ...ofTokens,
        ...belonging,
        ...checkPartners(whole, first.label, merge.allowPartial ?? false),
      ];
      await openOutput(
        out,
        folders.map(({ folder }) => folder),
        merge.overwrite,
      );
      notes.forEach(hooks.note);
      const record = {
        method: file.merge_method,
        from: path,
        models,
        ...(notes.length && { notes }),
        ...(tokenizer && { tokenizer }),
      };
      const { progress, stopping } = hooks;
      const write = async () => {
        await mergeOnDisk(plan, out, { shardBytes: shardSize, threads, progress, stopping });
        await writeAround(out, first, dtype, changes);
      };
      await writeRecorded(out, record, () => whileHashing(files, threads, write));
    },
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
export async function mergeByFile(path: string, merge: FileMerge, hooks: FileHooks): Promise<void> {
  const documents = (await readYamlDocuments(path)).map((document) => readDocument(document, path));
  if (documents.length === 0) throw new UserError(`${path}: the file is empty`);
  const [final, ...others] = inOrder(documents, path).toReversed();
  const made = new Map<string, string>();
  const places = { path, made, hooks };
  if (!final) return;
  if (others.length === 0) {
    await mergeDocument(final, merge, places);
    return;
  }
  const { out } = merge;
  if (!merge.overwrite && (await isFinished(out))) throw finishedBefore(out);
  // Beside the output: what stands in that is touched when all is merged, and not before.
  const parts = `${resolve(out)}.${fileNames.parts}`;
  await openOutput(parts, [], true);
  // What a kill left.
  await rm(parts, { recursive: true, force: true });
  try {
    // By this the next run knows the folder for ours.
    await mergeFile.write(parts, { version, method: final.file.merge_method, models: [] });
    for (const one of others.toReversed()) {
      const part = join(parts, String(made.size));
      await mergeDocument(one, { ...merge, out: part, overwrite: true }, places);
      made.set(one.file.name ?? "", part);
    }
    await mergeDocument(final, merge, places);
  } finally {
    await rm(parts, { recursive: true, force: true });
  }
}
