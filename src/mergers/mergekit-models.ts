/** The models that a mergekit file names, and where they lie. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { isAdapter } from "../checkpoint/folder.js";
import type { TokenizerChoice } from "../checkpoint/joint-vocabulary.js";
import type { MergeHooks } from "../config/options.js";
import { UserError } from "../errors.js";
import { fetchModel, hubId } from "../hub/hub.js";
import type { MergekitFile } from "../mergekit/file.js";
import type { NamedFolder } from "./members.js";

/** Every model that the file names, once. */
export function modelNames({ base_model: base, modules }: MergekitFile): string[] {
  const named = [
    base,
    ...modules.flatMap(({ models }) => models ?? []).map(({ model }) => model),
    ...modules
      .flatMap(({ slices }) => slices ?? [])
      .flatMap((slice) => [slice.base_model, ...slice.sources.map(({ model }) => model)]),
  ];
  return [...new Set(named.filter((name) => typeof name === "string"))];
}

export type FileHooks = Pick<MergeHooks, "note" | "progress" | "stopping">;

/** Where the models of a file are looked for. */
export interface ModelPlaces {
  /** The file. */
  readonly path: string;
  /** Folders of models that are known, by name: merges of the same file, and what was found. */
  readonly known: Map<string, string>;
  /** These are all that there are: nothing is looked for elsewhere. */
  readonly isRecorded?: boolean;
  readonly hooks: FileHooks;
}

/** Where a model lies: a merge of the same file, a folder as it stands or beside the file, or the hub's cache. */
async function findModel(name: string, places: ModelPlaces): Promise<string> {
  const folder = places.known.get(name) ?? (await searchModel(name, places));
  places.known.set(name, folder);
  return folder;
}

async function searchModel(name: string, { path, hooks, isRecorded }: ModelPlaces): Promise<string> {
  if (isRecorded)
    throw new UserError(`${path}: model ${name}: the merge's record does not say where it lies`);
  // Of a folder a revision says nothing.
  const [plain = name] = name.split("@");
  const folders = [name, plain].flatMap((one) => [one, join(dirname(path), one)]);
  const found = folders.find((folder) => existsSync(folder));
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
export async function namedFolder(name: string, places: ModelPlaces): Promise<NamedFolder> {
  const [model = name, adapter, ...rest] = name.split("+");
  if (adapter === undefined || existsSync(name))
    return { label: name, folder: await findModel(name, places) };
  const folder = await findModel(adapter, places);
  if (rest.length || !isAdapter(folder))
    throw new UserError(`${places.path}: model ${name}: after the + must stand the folder of one adapter`);
  return { label: name, folder, on: await findModel(model, places) };
}

/** Whose tokens the result has, a model's by its folder. */
export async function tokenizerOf(
  { tokenizer, base_model: base }: MergekitFile,
  places: ModelPlaces,
): Promise<TokenizerChoice | undefined> {
  if (!tokenizer || tokenizer.source === "union") return tokenizer;
  if (tokenizer.source === "base" || tokenizer.source === base) return { ...tokenizer, source: "base" };
  const [model = ""] = tokenizer.source.split("+");
  return { ...tokenizer, source: await findModel(model, places) };
}
