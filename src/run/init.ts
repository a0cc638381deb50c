/** A config written from what was found: tasks, what each is, models and data. */
import { existsSync, readdirSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { at } from "../at.js";
import { Resources } from "../checkpoint/files.js";
import { loadSettings } from "../config/load.js";
import { UserError } from "../errors.js";
import { openHeads, openModels } from "../inputs/models.js";
import { labelOrder } from "../inputs/prepare.js";
import { loadTaskData } from "../tasks/split.js";
import { expertsIn, tasksOf } from "../inputs/data.js";
import { dataOf, locate, type Recipe } from "../inputs/locate.js";
import { hasData, type Task } from "../tasks/registry.js";

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

/**
 * Opens the models, headers alone, and reads every row, as the merge will: what it would refuse is refused here.
 * @throws UserError
 */
async function checkSetup(
  options: InitOptions,
  recipe: Recipe,
  tasks: readonly Task[],
  data: string,
): Promise<void> {
  const settings = await loadSettings({ ...options, tasks: tasks.map(({ id }) => id) });
  const resources = new Resources();
  const hooks = { note() {}, progress() {}, step() {}, stopping: () => false };
  const opening = { recipe, options: { ...settings, resume: false }, tasks, data, out: "", hooks, resources };
  try {
    const models = await openModels(opening);
    const heads = await openHeads(opening, models, tasks);
    for (const [i, task] of tasks.entries()) {
      await loadTaskData(data, task, settings);
      if (models.head) labelOrder(at(heads, i).checkpoint.config, task);
    }
  } finally {
    await resources.close();
  }
}

/** Why no task has both an expert and data. */
function nothingToDo(data: string, asked: readonly string[]): string {
  if (!existsSync(data)) return `${data}: there is no such data folder`;
  const held = readdirSync(data, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const folders = held.map(({ name }) => name).join(", ");
  if (asked.length === 0)
    return `--experts: name the task of each: task=FOLDER; ${data} has data of ${folders || "none"}`;
  return (
    `${data}: it has data of ${folders || "no task"}, and the experts are called ${asked.join(", ")}: a task is ` +
    "called alike in both"
  );
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
  if (ids.length === 0) throw new UserError(nothingToDo(data, asked));
  const locations = await locate({ ...options, tasks: ids });
  const { base, sources } = locations;
  const told: string[] = [];
  const note = (line: string) => told.push(line);
  const tasks = await tasksOf(data, ids, { expertOf: expertsIn(sources), note, columns: options.columns });
  await checkSetup(options, { locations, name: "" }, tasks, data);
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
