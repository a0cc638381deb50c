import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { member, openMember, type Member } from "../checkpoint/family.js";
import { writeText } from "../checkpoint/files.js";
import { readYaml } from "../config/yaml.js";
import { mergeOnDisk } from "../disk/merge.js";
import { UserError } from "../errors.js";
import { compileMergekit } from "../mergekit/compile.js";
import { readMergekit } from "../mergekit/file.js";
import type { Method } from "../methods/types.js";
import { resolveValues } from "../methods/values.js";
import { version } from "../package.js";
import { writeMerge, type DiskMerge } from "./disk.js";
import type { MergeHooks } from "./options.js";
import { clearMerge, openOutput, writeAround } from "./output.js";

type Hooks = Pick<MergeHooks, "note" | "progress" | "stopping">;

/** Models by their folders alone: any architecture, no data, no engine. */
export interface ModelsMerge extends Pick<DiskMerge, "dtype" | "shardSize" | "threads"> {
  readonly method: Method;
  /** Parameters as the user gave them. */
  readonly given: Readonly<Record<string, unknown>>;
  readonly base?: string | undefined;
  readonly models: readonly string[];
  readonly out: string;
}

/** A model under its family's canonical names; of an architecture that we do not know, under its own. */
async function translated({ label, checkpoint }: Member): Promise<Member> {
  // Only here: it brings the engine's library with it.
  const { familyOfType } = await import("../models/index.js");
  return member(label, checkpoint, familyOfType(checkpoint.config["model_type"])?.canonical ?? ((name) => name));
}

/** Models as they call their own tensors, where they all do so alike; else under canonical names. */
async function alike(members: readonly Member[]): Promise<Member[]> {
  const [first, ...others] = members.map(({ checkpoint: { names } }) => new Set(names));
  if (others.every((names) => names.size === first!.size && [...names].every((name) => first!.has(name)))) return [...members];
  return Promise.all(members.map(translated));
}

/** Folders' own names, with a number where two have the same. */
function labelsOf(folders: readonly string[]): string[] {
  const names = folders.map((folder) => basename(resolve(folder)));
  return names.map((name, i) => (names.indexOf(name) === i ? name : `${name}#${names.slice(0, i).filter((other) => other === name).length + 1}`));
}

interface Mark { readonly method: string; readonly values?: unknown; readonly base?: string | undefined; readonly models: readonly string[]; readonly from?: string | undefined }

/**
 * Runs a merge into a folder that nothing of an earlier one is left in. Its mark, by which a later run knows the folder for
 * ours, is there before its weights; its card comes last. A merge that fails leaves neither.
 */
async function marked(out: string, mark: Mark, write: () => Promise<void>): Promise<void> {
  await clearMerge(out);
  await writeText(join(out, "merge.json"), { version, ...mark });
  try {
    await write();
  } catch (error) {
    await clearMerge(out);
    throw error;
  }
  const rows = [...(mark.base ? [`| base | ${basename(mark.base)} |`] : []), ...mark.models.map((model) => `| model | ${basename(model)} |`)];
  await writeText(join(out, "README.md"), `---
library_name: transformers
tags: [merge, train-merge]
---
# A merge by ${mark.method}

Made with train-merge ${version}. \`merge.json\` has the parameters.

| | |
| --- | --- |
${rows.join("\n")}
`);
}

/** Opens folders for as long as `run` takes. */
async function withMembers<T>(folders: readonly { label: string; folder: string }[], run: (members: readonly Member[]) => Promise<T>): Promise<T> {
  const opened: Member[] = [];
  try {
    for (const { label, folder } of folders) opened.push(await openMember(label, folder, (name) => name));
    return await run(await alike(opened));
  } finally {
    for (const { checkpoint } of opened) await checkpoint.close();
  }
}

/** Merges model folders, tensor by tensor, from disk to disk. Memory: see mergeOnDisk. */
export async function mergeModels(merge: ModelsMerge, hooks: Hooks): Promise<void> {
  const { method, given, base, models, out } = merge;
  if (base === undefined && !method.baseless) throw new UserError(`${method.name} needs the model that the others were fine-tuned from: --base FOLDER`);
  if (method.needs) throw new UserError(`${method.name} needs data to run the models on: name --tasks (and --data)`);
  const values = resolveValues(method, given, models.length);
  if (base === undefined && (values["dareP"] as readonly number[]).some((p) => p > 0)) throw new UserError("--dare-p drops entries of task vectors: name the base they are taken against with --base");
  const labels = labelsOf(models);
  const folders = [...models.map((folder, i) => ({ label: labels[i]!, folder })), ...(base === undefined ? [] : [{ label: "base", folder: base }])];
  await withMembers(folders, async (members) => {
    await openOutput(out, folders.map(({ folder }) => folder));
    await marked(out, { method: method.name, values, base, models }, () => writeMerge(out, { ...merge, values, base: members[models.length], inputs: members.slice(0, models.length) }, hooks));
  });
}

/** Runs a mergekit file. A model in it is a folder: as it stands, or beside the file. */
export async function mergeByFile(path: string, merge: Pick<ModelsMerge, "out" | "shardSize" | "threads"> & { readonly seed: number }, hooks: Hooks): Promise<void> {
  const file = readMergekit(await readYaml(path), path);
  const names = new Set([file.base_model, ...(file.models ?? []).map(({ model }) => model), ...(file.slices ?? []).flatMap(({ base_model, sources }) => [base_model, ...sources.map(({ model }) => model)])].filter((name) => typeof name === "string"));
  const folders = [...names].map((name) => {
    const folder = [name, join(path, "..", name)].find((candidate) => existsSync(candidate));
    if (folder === undefined) throw new UserError(`${path}: model ${name}: there is no such folder here or beside the file${name.includes("+") ? "; a model with an adapter (model+lora) is not supported, fold it into the model first" : ""}`);
    return { label: name, folder };
  });
  await withMembers(folders, async (opened) => {
    const members = new Map(opened.map((one) => [one.label, one]));
    const { plan, first, dtype, layers, kept } = compileMergekit(file, (name) => members.get(name)!, path, merge.seed);
    await openOutput(merge.out, folders.map(({ folder }) => folder));
    if (kept.length) hooks.note(`${kept.length} of ${plan.tensors.length} tensors are taken over as they are: ${kept.slice(0, 3).map(({ name, why }) => `${name} (${why})`).join(", ")}${kept.length > 3 ? " …" : ""}`);
    await marked(merge.out, { method: file.merge_method, from: path, models: [...names] }, async () => {
      await mergeOnDisk(plan, merge.out, { shardBytes: merge.shardSize, threads: merge.threads, progress: hooks.progress, stopping: hooks.stopping });
      const counts = ["num_hidden_layers", "num_layers", "n_layer"].filter((key) => key in first.checkpoint.config);
      await writeAround(merge.out, first, dtype, layers === undefined ? {} : Object.fromEntries(counts.map((key) => [key, layers])));
    });
  });
}
