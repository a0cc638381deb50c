/** Datasets of the hub as folders of data: their files linked under the names that a data folder has for splits. */
import { existsSync } from "node:fs";
import { copyFile, mkdir, readdir, realpath, symlink } from "node:fs/promises";
import { basename, dirname, extname, join, relative, resolve, sep } from "node:path";
import { digest } from "../checkpoint/files.js";
import { errorCode, UserError } from "../errors.js";
import { fetchRepository, hubId, staysInside, type HubHooks, type HubId, type Wanted } from "./hub.js";

/** A dataset by its id, which of its configurations, and which part of it where a split has several. */
export interface DatasetId extends HubId {
  readonly config: string | undefined;
  readonly part: string | undefined;
}

/**
 * "org/name", "org/name:config", "org/name:config/part" (facebook/anli:plain_text/r1, nyu-mll/glue:mnli/matched), each
 * with "@revision" behind it.
 * @throws UserError for anything else
 */
export function datasetId(text: string): DatasetId {
  const [, name = "", config, part, revision = ""] =
    /^([\w.-]+\/[\w.-]+)(?::([\w.-]+)(?:\/([\w.-]+))?)?(@[\w./-]+)?$/.exec(text) ?? [];
  const id = hubId(name + revision);
  if (!id)
    throw new UserError(
      `${text}: a dataset of the hub is named org/name, org/name:config, org/name:config/part or …@revision`,
    );
  return { ...id, config, part };
}

const splits = ["train", "validation", "test"] as const;
type Split = (typeof splits)[number];
const otherNames: Readonly<Record<string, Split>> = {
  val: "validation",
  valid: "validation",
  dev: "validation",
};
const fileKinds = /\.(parquet|jsonl|json|csv|tsv|arrow)$/;

/** The split that a file's name, or its folder's, begins with; undefined where it names none. */
function splitOf(path: string): Split | undefined {
  const parts = path.split("/").toReversed();
  for (const part of parts.slice(0, 2)) {
    const [word = ""] = part.toLowerCase().split(/[-_.]/);
    const found = splits.find((split) => split === word) ?? otherNames[word];
    if (found) return found;
  }
  return undefined;
}

/** The configuration that a file is of: its first folder, unless that is `data` or a split's. */
function configurationOf(path: string): string {
  const [folder = "", ...rest] = path.split("/");
  if (rest.length === 0 || folder === "data" || splitOf(folder)) return "";
  return folder;
}

const isData = (path: string): boolean =>
  staysInside(path) &&
  fileKinds.test(path) &&
  splitOf(path) !== undefined &&
  !/dataset_infos?\.json$/.test(path);

/** Files of the configuration that is asked for. @throws UserError naming those that there are, where none is clear */
function ofConfig<F extends { readonly path: string }>(
  files: readonly F[],
  { name, config }: DatasetId,
): readonly F[] {
  const known = [...new Set(files.map(({ path }) => configurationOf(path)))];
  const wanted = config ?? (known.length <= 1 ? known[0] : known.find((one) => one === ""));
  const chosen = files.filter(({ path }) => configurationOf(path) === wanted);
  if (chosen.length > 0 || files.length === 0) return chosen;
  throw new UserError(
    `${name}: name one of its configurations (${known.filter(Boolean).join(", ")}): ` +
      `${name}:${known.find(Boolean) ?? ""}`,
  );
}

const wantedData = (id: DatasetId): Wanted => ({
  type: "dataset",
  files: (all) =>
    ofConfig(
      all.filter(({ path }) => isData(path)),
      id,
    ),
  check(files, asked) {
    if (files.length === 0)
      throw new UserError(`${asked}: it holds no files of splits (train, validation, test) that are read`);
  },
});

/** Where datasets are converted to parquet, of those that are scripts or of other forms. */
const parquetBranch = "refs/convert/parquet";

/** A dataset's folder in the hub's cache; as the hub converted it, where its own files are of no form that is read. */
async function fetchDataset(id: DatasetId, hooks: HubHooks): Promise<{ folder: string; commit: string }> {
  try {
    return await fetchRepository(id, wantedData(id), hooks);
  } catch (error) {
    const isOther = error instanceof UserError && error.message.includes("holds no files of splits");
    if (!isOther || id.revision !== "main") throw error;
    return fetchRepository({ ...id, revision: parquetBranch }, wantedData(id), hooks);
  }
}

/** Every file below a folder that is a split's, in order. */
async function dataFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join("/"))
    .filter(isData)
    .sort();
}

/** A file's name without its number among others: of an only file, without its ending. */
const stemOf = (path: string): string => path.replace(/-\d{5}-of-\d{5}\.\w+$|[-_/]\d+\.\w+$|\.\w+$/, "");

/** What names the parts that a stem is of: train_r1 is of "train" and of "r1". */
const partsIn = (stem: string): string[] => basename(stem).split(/[-_.]/);

/** @throws UserError where no file is of the part that is asked for */
function checkPart(files: readonly string[], asked: string): void {
  const { part } = datasetId(asked);
  const stems = [...new Set(files.map(stemOf))];
  if (part === undefined || stems.some((stem) => partsIn(stem).includes(part))) return;
  const names = stems.map((stem) => basename(stem)).join(", ");
  throw new UserError(`${asked}: none of its files is of a part "${part}"; there are ${names}`);
}

/** The files of a split that are of the part which is asked for, where there are several. @throws UserError */
function ofPart(split: Split, files: readonly string[], asked: string): readonly string[] {
  const stems = [...new Set(files.map(stemOf))];
  const { part } = datasetId(asked);
  if (stems.length <= 1) return files;
  const chosen = stems.filter((stem) => part !== undefined && partsIn(stem).includes(part));
  if (chosen.length === 1) return files.filter((path) => chosen.includes(stemOf(path)));
  throw new UserError(
    `${asked}: its ${split} split is of several parts (${stems.map((stem) => basename(stem)).join(", ")}); name one: ` +
      "org/name:config/part, such as facebook/anli:plain_text/r1",
  );
}

/** What a split's files are called in a data folder. @throws UserError where several are of a form that is one file */
function namesFor(split: Split, files: readonly string[], asked: string): string[] {
  if (files.length === 0) return [];
  const kind = extname(files[0] ?? "").replace(/^\.json$/, ".jsonl");
  if (files.length === 1) return [`${split}${kind}`];
  if (kind !== ".parquet" && kind !== ".arrow")
    throw new UserError(
      `${asked}: its ${split} split is ${files.length} files (${files.slice(0, 3).join(", ")} …); one is read`,
    );
  const count = String(files.length).padStart(5, "0");
  return files.map((_, i) => `${split}-${String(i).padStart(5, "0")}-of-${count}${kind}`);
}

async function linkTo(target: string, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await symlink(await realpath(target), path).catch(async (error: unknown) => {
    if (errorCode(error) === "EEXIST") return;
    if (errorCode(error) !== "EPERM") throw error;
    await copyFile(target, path);
  });
}

/** Datasets by their tasks, where the rest of the data is, and where such folders are made. */
export interface DatasetPlaces {
  readonly datasets: Readonly<Record<string, string>>;
  readonly data: string | undefined;
  readonly cache: string;
}

/**
 * A data folder in which each task of `datasets` is a dataset of the hub, and every other what it is in `data`.
 * @returns the folder, and the commits of what came from the hub
 */
export async function dataFromHub(
  { datasets, data, cache }: DatasetPlaces,
  hooks: HubHooks,
): Promise<{ folder: string; commits: Record<string, string> }> {
  const found = new Map<string, { folder: string; asked: string }>();
  const commits: Record<string, string> = {};
  for (const [task, asked] of Object.entries(datasets)) {
    const { folder, commit } = await fetchDataset(datasetId(asked), hooks);
    found.set(task, { folder, asked });
    commits[asked] = commit;
  }
  const own = data === undefined ? undefined : resolve(data);
  const folder = join(
    cache,
    "data",
    digest({ own, commits, datasets: Object.entries(datasets) }).slice(0, 20),
  );
  for (const [task, { folder: from, asked }] of found) {
    const files = ofConfig(
      (await dataFiles(from)).map((path) => ({ path })),
      datasetId(asked),
    ).map(({ path }) => path);
    const chosen = splits.map((split) => {
      const ofSplit = files.filter((path) => splitOf(path) === split);
      return { split, ofSplit: ofPart(split, ofSplit, asked) };
    });
    checkPart(files, asked);
    for (const { split, ofSplit } of chosen)
      for (const [i, name] of namesFor(split, ofSplit, asked).entries()) {
        const file = ofSplit[i];
        if (file !== undefined) await linkTo(join(from, file), join(folder, task, name));
      }
  }
  if (own !== undefined && existsSync(own))
    for (const name of await readdir(own))
      if (!found.has(name)) await linkTo(join(own, name), join(folder, basename(name)));
  return { folder, commits };
}
