import { cacheFolder } from "../backend/index.js";
import { dataFromHub } from "../hub/datasets.js";
import { fetchModel, hubId, type HubHooks } from "../hub/hub.js";
import { existsSync, readdirSync, realpathSync, statSync } from "node:fs";
import { mkdir, readdir, symlink } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import type { Member } from "../checkpoint/family.js";
import type { MergeOptions } from "../config/options.js";
import { digest } from "../checkpoint/files.js";
import { errorCode, UserError } from "../errors.js";
import type { Column } from "../merge/source.js";
import { nearest } from "../nearest.js";
import { packageFolder } from "../package.js";
import type { PlacementRequest } from "../plan/memory.js";
import { hasData, loadTasks, pickTasks } from "../tasks/registry.js";

const isFolder = (path: string): boolean => existsSync(path) && statSync(path).isDirectory();

/** The family that ships with train-merge, and its data. */
export const shippedFamily = "mini";
export const shippedData = join(packageFolder, "data", "mini");

/**
 * A family is a folder with base/ and experts/<task>/: a path, or a name under checkpoints/ here or in
 * the package.
 */
async function familyFolder(family: string): Promise<string> {
  const stores = ["checkpoints", join(packageFolder, "checkpoints")];
  const candidates = [family, ...stores.map((store) => join(store, family))];
  const found = candidates.find((folder) => isFolder(join(folder, "base")));
  if (found !== undefined) return found;
  const known = (await Promise.all(stores.filter(isFolder).map((store) => readdir(store)))).flat();
  throw new UserError(
    `--family ${family}: no folder with base/ and experts/ of that name (looked at ` +
      `${candidates.join(", ")})${nearest(family, known)}`,
  );
}

/**
 * A model that a merge takes in: an expert of one task, or an earlier merge of several, whose heads lie
 * in heads/<task>.
 */
export interface Source {
  readonly label: string;
  readonly folder: string;
  readonly tasks: readonly string[];
  readonly merged: boolean;
}

export interface Locations {
  readonly base: string;
  readonly sources: readonly Source[];
}

/** `task=FOLDER`. A path may hold an equals sign of its own: only "task=" of a task that is asked for names one. */
function namedExpert(expert: string, tasks: readonly string[]): [task: string, folder: string] | undefined {
  const task = tasks.find((one) => expert.startsWith(`${one}=`));
  return task === undefined ? undefined : [task, expert.slice(task.length + 1)];
}

/** `task=FOLDER …`, or one folder that holds a folder a task. */
function expertFolders(experts: readonly string[], tasks: readonly string[]): Map<string, string> {
  const [only] = experts;
  if (experts.length === 1 && only !== undefined && !namedExpert(only, tasks))
    return new Map(tasks.map((task) => [task, join(only, task)]));
  const folders = new Map<string, string>();
  for (const expert of experts) {
    const named = namedExpert(expert, tasks);
    if (!named)
      throw new UserError(
        `--experts ${expert}: it names none of ${tasks.join(", ")}; give one folder that holds a ` +
          "folder a task, or task=FOLDER for each",
      );
    folders.set(...named);
  }
  if (folders.size !== experts.length)
    throw new UserError(`--experts names a task twice (${experts.join(" ")})`);
  return folders;
}

/** The base alone: `base`, or that of the family. */
export async function locateBase({
  family,
  base,
}: {
  family?: string | undefined;
  base?: string | undefined;
}): Promise<string> {
  const found = base ?? join(await familyFolder(family ?? shippedFamily), "base");
  if (!isFolder(found)) throw new UserError(`${found}: there is no base folder`);
  return found;
}

/** Finds base and experts from `family`, or from `base` and `experts`, which win over the family's own. */
export async function locate(options: {
  family?: string | undefined;
  base?: string | undefined;
  experts?: readonly string[] | undefined;
  tasks: readonly string[];
}): Promise<Locations> {
  let { base, experts: given } = options;
  if (base === undefined || given === undefined) {
    const family = await familyFolder(options.family ?? shippedFamily);
    base ??= join(family, "base");
    given ??= [join(family, "experts")];
  }
  const folders = expertFolders(given, options.tasks);
  const experts = options.tasks.map((task) => {
    const folder = folders.get(task);
    if (folder === undefined)
      throw new UserError(`--experts names no folder for task ${task} (write ${task}=FOLDER)`);
    if (!isFolder(folder)) throw new UserError(`${folder}: there is no expert for task ${task}`);
    return { label: task, folder, tasks: [task], merged: false };
  });
  if (!isFolder(base)) throw new UserError(`${base}: there is no base folder`);
  for (const { label, folder } of experts) {
    if (resolve(folder) === resolve(base))
      throw new UserError(`${folder}: the expert for ${label} is the base itself`);
  }
  return { base, sources: experts };
}

/** Every folder that is read, none of which may be written to. */
export const foldersOf = ({ base, sources }: Locations): string[] => [
  base,
  ...sources.map(({ folder }) => folder),
];

/** What is merged, where it is not simply one expert a task. */
export interface Recipe {
  readonly locations: Locations;
  /** The columns of the table, from the opened sources (default: each source is one). */
  readonly columns?: ((sources: readonly Member[]) => Column[]) | undefined;
  /** Where its task vectors must live, whatever the options say (an earlier run chose it). */
  readonly request?: PlacementRequest | undefined;
  /** What the run is called. */
  readonly name: string;
}

/** Whether a model is the base of the family that ships. */
function isShippedBase(folder: string): boolean {
  const shipped = join(packageFolder, "checkpoints", shippedFamily, "base");
  return existsSync(folder) && realpathSync(folder) === realpathSync(shipped);
}

/** Where a run's models and data are, as told. */
interface ToldPlaces {
  readonly data?: string | undefined;
  readonly family?: string | undefined;
  readonly base?: string | undefined;
}

/**
 * The data folder of a run. The data that ships belongs to the family that ships: any other model would be trained and
 * measured on what was made up for that one.
 * @throws UserError where another base has no data named
 */
export async function dataOf({ data, ...told }: ToldPlaces): Promise<string> {
  if (data !== undefined) return data;
  const base = await locateBase(told);
  if (isShippedBase(base)) return shippedData;
  throw new UserError(
    `${base}: name the data with --data: a folder with <task>/train, validation and test as .jsonl, .csv, .tsv or ` +
      ".parquet (what ships is for the synthetic family alone)",
  );
}

/** The recipe of the options: every task's expert is a column. */
export async function recipeOf(options: MergeOptions): Promise<Recipe> {
  // An unknown task is said to be one before a folder for it is missed.
  const data = await dataOf(options);
  const registry = await loadTasks(data);
  const named = options.tasks.filter((id) => registry.has(id) || !hasData(data, id));
  pickTasks(registry, named);
  const locations = await locate(options);
  const { family = options.base === undefined ? shippedFamily : locations.base } = options;
  return { locations, name: `${basename(family)}-${options.tasks.join("+")}` };
}

/**
 * Experts that are named one by one (task=FOLDER) as one folder that holds a folder a task: links, in the cache.
 * Whoever merges some of the tasks after others finds them there.
 */
export async function inOneFolder(experts: readonly string[]): Promise<string[]> {
  const named = experts.map((expert) => /^(\w[\w.-]*)=(.+)$/.exec(expert));
  if (!named.every((one) => one !== null)) return [...experts];
  const pairs = named.map(([, task = "", folder = ""]) => [task, resolve(folder)] as const);
  const folder = join(cacheFolder(), "experts", digest(pairs).slice(0, 20));
  await mkdir(folder, { recursive: true });
  for (const [task, target] of pairs) {
    if (!isFolder(target)) throw new UserError(`${target}: there is no expert for task ${task}`);
    await symlink(target, join(folder, task), "junction").catch((error: unknown) => {
      if (errorCode(error) !== "EEXIST") throw error;
    });
  }
  return [folder];
}

interface Named {
  readonly base?: string | undefined;
  readonly experts?: readonly string[] | undefined;
  readonly data?: string | undefined;
  readonly datasets?: Readonly<Record<string, string>> | undefined;
}

/** Says of what is no hub id that it is no folder either, where a folder beside it is called alike. */
function noFolderEither(text: string, error: unknown): unknown {
  const parent = dirname(text);
  if (!(error instanceof UserError) || !isFolder(parent)) return error;
  const alike = nearest(basename(text), readdirSync(parent));
  return new UserError(
    `${text}: there is no such folder in ${parent}${alike}; and as a hub id: ${error.message}`,
  );
}

/**
 * Brings every model that is named by a hub id into the cache, and puts its folder in the id's place.
 * `hub` says which commits they are.
 */
export async function fetchNamed<T extends Named>(
  options: T,
  hooks: HubHooks,
): Promise<T & { hub?: Record<string, string> }> {
  const hub: Record<string, string> = {};
  const local = async (text: string): Promise<string> => {
    const id = hubId(text);
    if (!id) return text;
    const { folder, commit } = await fetchModel(id, hooks).catch((error: unknown) => {
      throw noFolderEither(text, error);
    });
    hub[text] = commit;
    return folder;
  };
  const base = options.base === undefined ? undefined : await local(options.base);
  const experts: string[] = [];
  for (const expert of options.experts ?? []) {
    // "task=org/name": only the part behind the sign may be one.
    const [, sign = "", rest = expert] = /^(\w[\w.-]*=)(.+)$/.exec(expert) ?? [];
    experts.push(hubId(rest) ? `${sign}${await local(rest)}` : await local(expert));
  }
  let { data } = options;
  if (options.datasets) {
    const made = await dataFromHub({ datasets: options.datasets, data, cache: cacheFolder() }, hooks);
    data = made.folder;
    Object.assign(hub, made.commits);
  }
  return {
    ...options,
    ...(base !== undefined && { base }),
    ...(data !== undefined && { data }),
    ...(options.experts && { experts }),
    ...(Object.keys(hub).length > 0 && { hub }),
  };
}
