import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { sha256 } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { fileNames, resultsFile, runFile } from "../folder/files.js";
import { trainMerge } from "./merge.js";
import { locateBase } from "../inputs/locate.js";
import type { MergeHooks, MergeOptions, MergeResult } from "../config/options.js";

/** A merge's task vector only means something against the base that it was made from. */
async function checkBase(to: string, base: string): Promise<void> {
  const found = await resultsFile.read(to);
  const weights = (found?.inputs ?? []).filter(
    ({ role, file }) => role === "base" && file.endsWith(".safetensors"),
  );
  for (const { file, sha256: expected } of weights) {
    const path = join(base, basename(file));
    if (!existsSync(path) || (await sha256(path)) !== expected)
      throw new UserError(
        `${base}: ${to} was made from another base (its ${file} differs); name that one with --base or --family`,
      );
  }
}

export interface AddedExpert {
  /** Its folder. */
  readonly expert: string;
  /** The finished merge's folder. */
  readonly to: string;
  /** Its task (default: its folder's name). */
  readonly task?: string | undefined;
}

/**
 * Adds an expert to a finished merge. The merge is one child (its written weights, its heads), the
 * expert the other: two coefficients a layer are trained on the validation data of all tasks.
 * @param options as for a merge; its tasks are not looked at
 */
export async function addToMerge(
  { expert, to, task }: AddedExpert,
  options: MergeOptions,
  hooks: MergeHooks,
): Promise<MergeResult> {
  if (options.treat !== "none")
    throw new UserError(
      `--treat ${options.treat} is not for add: the merge's own task vector is not one to treat`,
    );
  const heads = join(to, fileNames.heads);
  if (!existsSync(heads) || !resultsFile.exists(to))
    throw new UserError(
      `--to ${to}: it is not a finished merge (there is no heads/ or no results.json in it)`,
    );
  const name = task ?? basename(resolve(expert));
  const before = (await readdir(heads)).sort();
  if (before.includes(name))
    throw new UserError(
      `${to} has ${name} already (${before.join(", ")}); give the expert's own task with --task`,
    );
  if (!existsSync(expert)) throw new UserError(`${expert}: there is no such folder`);
  const made = await runFile.read(to);
  const { settings: saved = {} } = (await resultsFile.read(to)) ?? {};
  const told = {
    ...options,
    data: options.data ?? made?.data,
    prompts: options.prompts ?? made?.prompts,
    columns: { ...saved.columns, ...options.columns },
  };
  if (options.base === undefined && options.family === undefined) told.base = made?.places?.base;
  const base = await locateBase(told);
  await checkBase(to, base);
  const tasks = [...before, name];
  const label = before.join("+");
  return trainMerge({ ...told, tasks }, hooks, {
    name: `${basename(resolve(to))}+${name}`,
    locations: {
      base,
      sources: [
        { label, folder: to, tasks: before, merged: true },
        { label: name, folder: expert, tasks: [name], merged: false },
      ],
    },
  });
}
