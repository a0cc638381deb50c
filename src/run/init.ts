/** A config written from what was found: tasks, what each is, models and data. */
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { UserError } from "../errors.js";
import { expertsIn, tasksOf } from "../inputs/data.js";
import { dataOf, locate } from "../inputs/locate.js";
import { hasData } from "../tasks/registry.js";

export interface InitOptions {
  readonly base?: string | undefined;
  readonly experts?: readonly string[] | undefined;
  readonly family?: string | undefined;
  readonly data?: string | undefined;
  readonly columns?: Readonly<Record<string, string>> | undefined;
  /** Default: every expert that there are data of. */
  readonly tasks?: readonly string[] | undefined;
}

/** The tasks that experts are named after: `task=FOLDER`, or the folders in one. */
async function tasksOfExperts({ experts, family }: InitOptions): Promise<string[]> {
  const [only, ...more] = experts ?? (family === undefined ? [] : [join(family, "experts")]);
  if (only === undefined)
    throw new UserError(
      "name the experts with --experts: one folder that holds a folder a task, or task=FOLDER for each",
    );
  const named = [only, ...more].map((expert) => /^(\w[\w.-]*)=/.exec(expert)?.[1]);
  if (more.length > 0 || named[0] !== undefined) return named.filter((task) => task !== undefined);
  if (!existsSync(only)) throw new UserError(`${only}: there is no such folder`);
  const entries = await readdir(only, { withFileTypes: true });
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

/** One key of the config, with a comment in front of it. */
const configEntry = (key: string, value: unknown, comment = ""): string =>
  `${comment === "" ? "" : `${comment.replace(/^/gm, "# ")}\n`}${stringify({ [key]: value })}`;

/**
 * The text of a config for `train-merge --config`.
 * @throws UserError where no task has both an expert and data
 */
export async function configText(options: InitOptions): Promise<string> {
  const data = await dataOf(options);
  const asked = options.tasks ?? (await tasksOfExperts(options));
  const ids = asked.filter((id) => options.tasks !== undefined || hasData(data, id));
  if (ids.length === 0)
    throw new UserError(`${data}: it has a folder of none of the experts' tasks (${asked.join(", ")})`);
  const { base, sources } = await locate({ ...options, tasks: ids });
  const told: string[] = [];
  const note = (line: string) => told.push(line);
  const tasks = await tasksOf(data, ids, { expertOf: expertsIn(sources), note, columns: options.columns });
  const known = tasks.map(({ id, kind, metrics }) => {
    const found =
      told.find((line) => line.startsWith(`${id}: `)) ?? `${id}: ${kind}, as train-merge knows it`;
    return `${found}; measured by ${metrics.join(", ")}`;
  });
  return [
    "# Written by `train-merge init`. Run it with `train-merge --config FILE`; `train-merge train --help all` lists\n",
    "# every key. What a task is can be said otherwise in tasks.json in the data folder.\n\n",
    configEntry("tasks", ids, known.join("\n")),
    configEntry("base", base),
    configEntry(
      "experts",
      sources.map(({ label, folder }) => `${label}=${folder}`),
    ),
    configEntry("data", data),
    ...(options.columns ? [configEntry("columns", options.columns)] : []),
    "\n",
    configEntry("steps", 100, "Optimiser steps; `minutes: 10` fits them to a time."),
    configEntry(
      "val-per-task",
      32,
      "Validation examples of each task that coefficients are trained and chosen by.",
    ),
    configEntry("patience", 50, "Stop where the held-out loss has found nothing better for so many steps."),
  ].join("");
}
