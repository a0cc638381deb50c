import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { isAdapter } from "../checkpoint/adapter.js";
import { member, openExpert, openMember, type Member } from "../checkpoint/family.js";
import { writeText } from "../checkpoint/files.js";
import { readYaml } from "../config/yaml.js";
import { mergeOnDisk } from "../disk/merge.js";
import { UserError } from "../errors.js";
import { compileMergekit } from "../mergekit/compile.js";
import { readMergekit } from "../mergekit/file.js";
import type { Method } from "../methods/types.js";
import { resolveValues } from "../methods/values.js";
import { version } from "../package.js";
import { writeAdapterMerge } from "./adapters.js";
import { writeMerge, type DiskMerge } from "../folder/merge.js";
import type { MergeHooks } from "../config/options.js";
import { clearMerge, openOutput, writeAround } from "../folder/output.js";
import { type WriteForm, adapterForm } from "../checkpoint/write-form.js";

type Hooks = Pick<MergeHooks, "note" | "progress" | "stopping">;

/** Models by their folders alone: any architecture, no data, no engine. */
export interface ModelsMerge extends Pick<DiskMerge, "dtype" | "shardSize" | "threads"> {
  readonly method: Method;
  /** Parameters as the user gave them. */
  readonly given: Readonly<Record<string, unknown>>;
  readonly base?: string | undefined;
  readonly models: readonly string[];
  /** What they are called (default: as their folders are). */
  readonly labels?: readonly string[] | undefined;
  readonly out: string;
  /** Where all models are adapters: whether the result is one (default: it is), and of what rank. */
  readonly write?: WriteForm | undefined;
  readonly rank?: number | undefined;
}

/** How a model's family calls its tensors; of an architecture that we do not know, as the file does. */
async function canonicalOf({ checkpoint }: Member): Promise<(name: string) => string> {
  // Only here: it brings the engine's library with it.
  const { familyOfType } = await import("../models/index.js");
  return familyOfType(checkpoint.config["model_type"])?.canonical ?? ((name) => name);
}

const translated = async (one: Member): Promise<Member> =>
  member(one.label, one.checkpoint, await canonicalOf(one));

/** Models as they call their own tensors, where they all do so alike; else under canonical names. */
async function alike(members: readonly Member[]): Promise<Member[]> {
  const [first, ...others] = members.map(({ checkpoint: { names } }) => new Set(names));
  if (others.every((names) => names.size === first!.size && [...names].every((name) => first!.has(name))))
    return [...members];
  return Promise.all(members.map(translated));
}

/** Folders' own names, with a number where two have the same. */
function labelsOf(folders: readonly string[]): string[] {
  const names = folders.map((folder) => basename(resolve(folder)));
  return names.map((name, i) =>
    names.indexOf(name) === i
      ? name
      : `${name}#${names.slice(0, i).filter((other) => other === name).length + 1}`,
  );
}

interface Mark {
  readonly adapter?: string;
  readonly method: string;
  readonly values?: unknown;
  readonly base?: string | undefined;
  readonly models: readonly string[];
  readonly from?: string | undefined;
}

/**
 * Runs a merge into a folder that nothing of an earlier one is left in. Its mark, by which a later run
 * knows the folder for ours, is there before its weights; its card comes last. A merge that fails
 * leaves neither.
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
  const rows = [
    ...(mark.base ? [`| base | ${basename(mark.base)} |`] : []),
    ...mark.models.map((model) => `| model | ${basename(model)} |`),
  ];
  await writeText(
    join(out, "README.md"),
    `---
library_name: ${mark.adapter === undefined ? "transformers" : "peft"}
tags: [merge, train-merge]
---
# A merge by ${mark.method}

Made with train-merge ${version}. \`merge.json\` has the parameters.

| | |
| --- | --- |
${rows.join("\n")}
`,
  );
}

/** Opens folders for as long as `run` takes. */
async function withMembers<T>(
  folders: readonly { label: string; folder: string; on?: string | undefined }[],
  run: (members: readonly Member[]) => Promise<T>,
): Promise<T> {
  const opened: Member[] = [];
  try {
    const members: Member[] = [];
    const same = (name: string) => name;
    for (const { label, folder, on } of folders) {
      if (!isAdapter(folder)) {
        opened.push(await openMember(label, folder, same));
        members.push(opened.at(-1)!);
        continue;
      }
      if (on === undefined)
        throw new UserError(`${folder}: it is an adapter: name the model that it was trained on with --base`);
      // Opened under a name of its own: an adapter closes its own file alone.
      const base = await openMember("base", on, same);
      opened.push(base);
      opened.push(await openExpert(label, folder, base, await canonicalOf(base)));
      // Under the base's own names, as the base is.
      members.push(member(label, opened.at(-1)!.checkpoint, same));
    }
    return await run(await alike(members));
  } finally {
    for (const { checkpoint } of opened) await checkpoint.close();
  }
}

/** Merges model folders, tensor by tensor, from disk to disk. Memory: see mergeOnDisk. */
export async function mergeModels(merge: ModelsMerge, hooks: Hooks): Promise<void> {
  const { method, given, base, models, out } = merge;
  if (base === undefined && !method.baseless)
    throw new UserError(`${method.name} needs the model that the others were fine-tuned from: --base FOLDER`);
  if (method.needs)
    throw new UserError(`${method.name} needs data to run the models on: name --tasks (and --data)`);
  const values = resolveValues(method, given, models.length);
  if (base === undefined && (values["dareP"] as readonly number[]).some((p) => p > 0))
    throw new UserError(
      "--dare-p drops entries of task vectors: name the base they are taken against with --base",
    );
  const labels = labelsOf(merge.labels ?? models);
  const folders = [
    ...models.map((folder, i) => ({ label: labels[i]!, folder, on: base })),
    ...(base === undefined ? [] : [{ label: "base", folder: base }]),
  ];
  await withMembers(folders, async (members) => {
    await openOutput(
      out,
      folders.map(({ folder }) => folder),
    );
    const [inputs, origin] = [members.slice(0, models.length), members[models.length]];
    // Weights that do not add up to 1 weigh the base too: a model can say that, an adapter of it cannot.
    const weighs = method.name === "linear" && values["normalize"] === false;
    if (weighs && merge.write === "adapter")
      throw new UserError(
        "--write adapter: without --normalize the base is weighed too, and no adapter can say " +
          "that; use --write model, or task-arithmetic",
      );
    const adapters = weighs ? undefined : adapterForm(inputs, merge.write ?? "auto");
    await marked(
      out,
      { method: method.name, values, base, models, ...(adapters && { adapter: adapters[0]!.adapter.kind }) },
      async () => {
        if (adapters)
          await writeAdapterMerge(out, { ...merge, values, base: origin!, inputs }, adapters, hooks);
        else await writeMerge(out, { ...merge, values, base: origin, inputs }, hooks);
      },
    );
  });
}

/** Runs a mergekit file. A model in it is a folder: as it stands, or beside the file. */
export async function mergeByFile(
  path: string,
  merge: Pick<ModelsMerge, "out" | "shardSize" | "threads"> & { readonly seed: number },
  hooks: Hooks,
): Promise<void> {
  const file = readMergekit(await readYaml(path), path);
  const names = new Set(
    [
      file.base_model,
      ...(file.models ?? []).map(({ model }) => model),
      ...(file.slices ?? []).flatMap(({ base_model, sources }) => [
        base_model,
        ...sources.map(({ model }) => model),
      ]),
    ].filter((name) => typeof name === "string"),
  );
  const find = (name: string): string => {
    const folder = [name, join(path, "..", name)].find((candidate) => existsSync(candidate));
    if (folder === undefined)
      throw new UserError(`${path}: model ${name}: there is no such folder here or beside the file`);
    return folder;
  };
  const folders = [...names].map((name) => {
    // "model+adapter", as mergekit writes it.
    const [on, adapter, ...rest] = name.split("+");
    if (adapter === undefined || existsSync(name)) return { label: name, folder: find(name) };
    if (rest.length || !isAdapter(find(adapter)))
      throw new UserError(`${path}: model ${name}: after the + must stand the folder of one adapter`);
    return { label: name, folder: find(adapter), on: find(on!) };
  });
  await withMembers(folders, async (opened) => {
    const members = new Map(opened.map((one) => [one.label, one]));
    const { plan, first, dtype, layers, kept } = compileMergekit(
      file,
      (name) => members.get(name)!,
      path,
      merge.seed,
    );
    await openOutput(
      merge.out,
      folders.map(({ folder }) => folder),
    );
    if (kept.length)
      hooks.note(
        `${kept.length} of ${plan.tensors.length} tensors are taken over as they are: ${kept
          .slice(0, 3)
          .map(({ name, why }) => `${name} (${why})`)
          .join(", ")}${kept.length > 3 ? " …" : ""}`,
      );
    await marked(merge.out, { method: file.merge_method, from: path, models: [...names] }, async () => {
      await mergeOnDisk(plan, merge.out, {
        shardBytes: merge.shardSize,
        threads: merge.threads,
        progress: hooks.progress,
        stopping: hooks.stopping,
      });
      const counts = ["num_hidden_layers", "num_layers", "n_layer"].filter(
        (key) => key in first.checkpoint.config,
      );
      await writeAround(
        merge.out,
        first,
        dtype,
        layers === undefined ? {} : Object.fromEntries(counts.map((key) => [key, layers])),
      );
    });
  });
}
