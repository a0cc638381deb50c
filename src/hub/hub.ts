import { existsSync } from "node:fs";
import { mkdir, readFile, statfs, symlink } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { travels } from "../checkpoint/companions.js";
import { writeText } from "../checkpoint/files.js";
import { errorCode, messageOf, UserError } from "../errors.js";
import { boundedFetch, hubBounds, type HubBounds } from "./bounds.js";
import { downloadFile, type HubFile } from "./download.js";

/** A model on the hub: "org/name", or "org/name@revision" with a branch, a tag or a commit. */
export interface HubId {
  readonly name: string;
  readonly revision: string;
}

/** What looks like a hub id and is no folder here. */
export function hubId(text: string): HubId | undefined {
  if (existsSync(text)) return undefined;
  const [, name, revision = "main"] =
    /^([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?:@([\w][\w./-]*))?$/.exec(text) ?? [];
  if (name === undefined || revision.includes("..")) return undefined;
  return { name, revision };
}

/** The id of what lies in a folder of the hub's cache, pinned to its commit; undefined elsewhere. */
export function idOfSnapshot(folder: string): string | undefined {
  const [, owner, name, commit] =
    /[\\/]models--([\w.-]+?)--([\w.-]+)[\\/]snapshots[\\/]([0-9a-f]{40})[\\/]?$/.exec(folder) ?? [];
  if (commit === undefined) return undefined;
  return `${owner}/${name}@${commit}`;
}

const weightFiles = /^(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors$/;
/** What older models have instead. */
const olderWeights = /^(pytorch_model(-\d{5}-of-\d{5})?|adapter_model)\.bin$/;
const configFiles = /^(config|adapter_config|model\.safetensors\.index)\.json$/;

/** Whether a path stays in the folder that it is joined to. */
export const staysInside = (path: string): boolean =>
  path.split("/").every((part) => part !== "" && !/^\.\.?$|[\\:]/.test(part));

/** Of a repository's files, those that a model, an adapter, a tokenizer or an image processor consists of. */
export function wantedOf<T extends { readonly path: string }>(files: readonly T[]): T[] {
  const hasSafetensors = files.some(({ path }) => weightFiles.test(path));
  const isOlder = (path: string): boolean =>
    !hasSafetensors && (olderWeights.test(path) || path === "pytorch_model.bin.index.json");
  return files.filter(
    ({ path }) =>
      staysInside(path) &&
      // The card: its licence and language are taken over.
      (weightFiles.test(path) ||
        configFiles.test(path) ||
        isOlder(path) ||
        travels(path) ||
        path === "README.md"),
  );
}

export const endpoint = (): string =>
  (process.env["HF_ENDPOINT"] ?? "https://huggingface.co").replace(/\/+$/, "");
const offline = (): boolean =>
  ["1", "true", "yes", "on"].includes((process.env["HF_HUB_OFFLINE"] ?? "").toLowerCase());

const isCommit = (text: string): boolean => /^[0-9a-f]{40}$/.test(text);
const isHash = (text: string): boolean => /^[0-9a-f]{40}([0-9a-f]{24})?$/.test(text);

/** What a file says, without the white space around it; undefined where there is no file, or nothing in it. */
async function readLine(path: string): Promise<string | undefined> {
  if (!existsSync(path)) return undefined;
  return (await readFile(path, "utf8")).trim() || undefined;
}

/** The user's token, from its standard places; it goes into a header and nowhere else. */
export async function userToken(): Promise<string | undefined> {
  const { HF_TOKEN, HF_HOME, HF_TOKEN_PATH, XDG_CACHE_HOME } = process.env;
  if (HF_TOKEN) return HF_TOKEN.trim();
  const home = HF_HOME ?? join(XDG_CACHE_HOME ?? join(homedir(), ".cache"), "huggingface");
  return readLine(HF_TOKEN_PATH ?? join(home, "token"));
}

/** A model in the hub's cache. */
export interface Cached {
  /** Where its files lie. */
  readonly folder: string;
  readonly commit: string;
}

/** A model out of the cache, without asking anybody. @param why nobody is asked */
async function fromCache(cache: string, { name, revision }: HubId, why: string): Promise<Cached> {
  const commit = isCommit(revision) ? revision : await readLine(join(cache, "refs", revision));
  if (commit !== undefined && isCommit(commit)) {
    const folder = join(cache, "snapshots", commit);
    if (existsSync(folder)) return { folder, commit };
  }
  throw new UserError(`${name}@${revision}: it is not in the cache (${cache}), and ${why}`);
}

export interface HubHooks {
  note(message: string): void;
  progress(phase: string, done: number, of: number): void;
}

/** What the hub says of a model: its commit, and the files of it that are wanted. */
interface Listing {
  readonly commit: string;
  readonly files: readonly HubFile[];
}

/** What is fetched: of which kind of repository, which of its files, and what refuses those that are none of it. */
export interface Wanted {
  readonly type: "model" | "dataset";
  files(all: readonly HubFile[]): readonly HubFile[];
  /** @throws UserError where what is wanted is not among them */
  check(files: readonly HubFile[], asked: string): void;
}

const wantedModel: Wanted = {
  type: "model",
  files: wantedOf,
  check(files, asked) {
    if (!files.some(({ path }) => weightFiles.test(path) || olderWeights.test(path)))
      throw new UserError(`${asked}: it holds neither safetensors nor pytorch_model.bin`);
  },
};

/** Asks the hub. @throws UserError, or whatever the network throws */
async function listRepository(
  { name, revision }: HubId,
  wanted: Wanted,
  accessToken: string | undefined,
  bounds: HubBounds,
): Promise<Listing> {
  const { datasetInfo, listFiles, modelInfo } = await import("@huggingface/hub");
  const asked = {
    hubUrl: endpoint(),
    fetch: boundedFetch(endpoint(), bounds),
    ...(accessToken !== undefined && { accessToken }),
  };
  const { sha: commit } =
    wanted.type === "model"
      ? await modelInfo({ ...asked, name, revision, additionalFields: ["sha"] })
      : await datasetInfo({ ...asked, name, revision, additionalFields: ["sha"] });
  if (!isCommit(commit)) throw new UserError(`${name}@${revision}: the hub names no commit`);
  const files: HubFile[] = [];
  const repo = { name, type: wanted.type };
  const recursive = wanted.type === "dataset";
  for await (const { path, type, size, oid, lfs } of listFiles({
    ...asked,
    repo,
    revision: commit,
    recursive,
  })) {
    if (type === "file")
      files.push({ path, size: lfs?.size ?? size, oid: lfs?.oid ?? oid ?? "", large: lfs !== undefined });
  }
  return { commit, files: wanted.files(files) };
}

/** The status with which the hub refused, where it was the hub. */
export function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !("statusCode" in error) || typeof error.statusCode !== "number")
    return undefined;
  return error.statusCode;
}

/** Where the hub could not be asked: the model as it is in the cache. @throws UserError where it is not */
async function withoutHub(error: unknown, cache: string, id: HubId, hooks: HubHooks): Promise<Cached> {
  if (error instanceof UserError) throw error;
  const asked = `${id.name}@${id.revision}`;
  const status = statusOf(error);
  if (status === 401 || status === 403 || status === 404)
    throw new UserError(
      `${asked}: the hub has no such model, or access is denied (${status}); a ` +
        "private or gated one needs a login (huggingface-cli login, or HF_TOKEN)",
    );
  const cached = await fromCache(cache, id, `${endpoint()} cannot be reached (${messageOf(error)})`);
  hooks.note(
    `${endpoint()} cannot be reached: ${asked} is taken from the cache as it was ` +
      `(${cached.commit.slice(0, 12)})`,
  );
  return cached;
}

/** @throws UserError where the hub says of a file what cannot be */
function refuseListed(name: string, { path, oid, size }: HubFile): void {
  if (!isHash(oid)) throw new UserError(`${name}: the hub lists "${path}" with a hash that is none`);
  if (!Number.isSafeInteger(size) || size < 0)
    throw new UserError(`${name}: the hub lists "${path}" with ${size} bytes`);
}

const inGigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

/** @throws UserError where files are larger than what the disk has left */
async function checkSpace(cache: string, files: readonly HubFile[]): Promise<void> {
  await mkdir(cache, { recursive: true });
  const needed = files.reduce((sum, { size }) => sum + size, 0);
  const { bavail, bsize, blocks } = await statfs(cache);
  const free = bavail * bsize;
  // Some file systems do not tell.
  if (blocks === 0 || needed <= free) return;
  throw new UserError(
    `${cache}: ${inGigabytes(needed)} are to be fetched, and ${inGigabytes(free)} are free; make room, or name ` +
      "another cache with HF_HUB_CACHE",
  );
}

/** Links a snapshot's file to its bytes. */
async function linkBlob(blob: string, link: string): Promise<void> {
  if (existsSync(link)) return;
  await mkdir(dirname(link), { recursive: true });
  try {
    await symlink(relative(dirname(link), blob), link);
  } catch (error) {
    // Another run may have been here a moment before.
    if (errorCode(error) !== "EEXIST") throw error;
  }
}

/** A model of the hub, in its usual cache. */
export const fetchModel = (id: HubId, hooks: HubHooks, bounds?: HubBounds): Promise<Cached> =>
  fetchRepository(id, wantedModel, hooks, bounds);

/**
 * Brings a repository's files from the hub into its usual cache (blobs by hash, snapshots of links, refs), and says
 * where it lies. Files that are there are not fetched again; the revision is pinned to its commit.
 * HF_HUB_OFFLINE, HF_ENDPOINT, HF_HOME and HF_TOKEN are heeded. What the hub may take of time, memory and disk is
 * bounded.
 */
export async function fetchRepository(
  id: HubId,
  wanted: Wanted,
  hooks: HubHooks,
  bounds: HubBounds = hubBounds,
): Promise<Cached> {
  // Only here: most runs need nothing of the hub.
  const { getHFHubCachePath, getRepoFolderName } = await import("@huggingface/hub");
  const { name, revision } = id;
  const cache = join(getHFHubCachePath(), getRepoFolderName({ name, type: wanted.type }));
  if (offline()) return fromCache(cache, id, "HF_HUB_OFFLINE is set");
  const accessToken = await userToken();
  let listing: Listing;
  try {
    listing = await listRepository(id, wanted, accessToken, bounds);
  } catch (error) {
    return withoutHub(error, cache, id, hooks);
  }
  const { commit, files } = listing;
  wanted.check(files, `${name}@${revision}`);
  const home = wanted.type === "model" ? name : `datasets/${name}`;
  const folder = join(cache, "snapshots", commit);
  // A redirect to another host does not carry it on: fetch sees to that.
  const headers: Record<string, string> = {};
  if (accessToken !== undefined) headers["Authorization"] = `Bearer ${accessToken}`;
  const blobOf = (file: HubFile): string => join(cache, "blobs", file.oid);
  files.forEach((file) => refuseListed(name, file));
  await checkSpace(
    cache,
    files.filter((file) => !existsSync(blobOf(file))),
  );
  for (const file of files) {
    const blob = blobOf(file);
    if (!existsSync(blob)) {
      await downloadFile(blob, file, {
        url: `${endpoint()}/${home}/resolve/${commit}/${file.path}`,
        headers,
        bounds,
        progress: (bytes) => hooks.progress(`${name}/${file.path}`, bytes, file.size),
      });
    }
    await linkBlob(blob, join(folder, file.path));
  }
  if (revision !== commit) await writeText(join(cache, "refs", revision), commit);
  hooks.note(`${name}@${revision} is ${commit.slice(0, 12)}, in ${folder}`);
  return { folder, commit };
}
