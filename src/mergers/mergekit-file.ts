import { existsSync } from "node:fs";
import { join } from "node:path";
import { at, lookUp } from "../at.js";
import { checkTogether } from "../checkpoint/belonging.js";
import { checkPartners } from "../disk/partners.js";
import { isAdapter } from "../checkpoint/folder.js";
import type { MergeHooks } from "../config/options.js";
import { readYaml } from "../config/yaml.js";
import { mergeOnDisk } from "../disk/merge.js";
import { UserError } from "../errors.js";
import { openOutput, writeAround } from "../folder/output.js";
import { compileMergekit } from "../mergekit/compile.js";
import { readMergekit } from "../mergekit/file.js";
import { withMembers, type NamedFolder } from "./members.js";
import type { ModelsMerge } from "./models.js";
import { writeRecorded } from "./output.js";

type FileContent = ReturnType<typeof readMergekit>;

/** Every model that the file names, once. */
function modelNames({ base_model: base, models, slices }: FileContent): string[] {
  const named = [
    base,
    ...(models ?? []).map(({ model }) => model),
    ...(slices ?? []).flatMap((slice) => [slice.base_model, ...slice.sources.map(({ model }) => model)]),
  ];
  return [...new Set(named.filter((name) => typeof name === "string"))];
}

/** Where a model of the file is: a folder as it stands, or beside the file. */
function findModel(name: string, path: string): string {
  const folder = [name, join(path, "..", name)].find((candidate) => existsSync(candidate));
  if (folder !== undefined) return folder;
  throw new UserError(`${path}: model ${name}: there is no such folder here or beside the file`);
}

/** A model as mergekit writes it: a folder, or "model+adapter". */
function namedFolder(name: string, path: string): NamedFolder {
  const [model = name, adapter, ...rest] = name.split("+");
  if (adapter === undefined || existsSync(name)) return { label: name, folder: findModel(name, path) };
  const folder = findModel(adapter, path);
  if (rest.length || !isAdapter(folder))
    throw new UserError(`${path}: model ${name}: after the + must stand the folder of one adapter`);
  return { label: name, folder, on: findModel(model, path) };
}

/** Runs a mergekit file. */
export async function mergeByFile(
  path: string,
  merge: Pick<
    ModelsMerge,
    "out" | "shardSize" | "threads" | "allowPartial" | "allowMismatch" | "strict" | "overwrite" | "dequantise"
  > & {
    readonly seed: number;
  },
  hooks: Pick<MergeHooks, "note" | "progress" | "stopping">,
): Promise<void> {
  const { out, shardSize, threads, seed } = merge;
  const file = readMergekit(await readYaml(path), path);
  const models = modelNames(file);
  const folders = models.map((name) => namedFolder(name, path));
  await withMembers(folders, { reference: 0, dequantise: merge.dequantise }, async (opened, checkFiles) => {
    const members = new Map(opened.map((one) => [one.label, one]));
    const base = opened.find(({ label }) => label === file.base_model);
    const sliced = Boolean(file.slices);
    const notes = await checkTogether(
      { first: at(opened, 0), members: opened, base: sliced ? undefined : base },
      { ...merge, sliced },
    );
    const { plan, first, dtype, changes, kept, left } = compileMergekit(
      file,
      (name) => lookUp(members, name),
      path,
      seed,
    );
    notes.push(
      ...checkPartners({ total: plan.tensors.length, kept, left }, first.label, merge.allowPartial ?? false),
    );
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
    };
    await writeRecorded(out, record, async () => {
      const { progress, stopping } = hooks;
      await mergeOnDisk(plan, out, { shardBytes: shardSize, threads, progress, stopping });
      await writeAround(out, first, dtype, changes);
      await checkFiles();
    });
  });
}
