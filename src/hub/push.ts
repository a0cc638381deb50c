/** Uploads a folder to a repository of the hub, a commit at a time: what is there already is left as it is. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { sha256 } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { endpoint, statusOf, userToken, type HubHooks } from "./hub.js";

/** Files above this are committed one by one, so that an upload that breaks off loses one at most. */
const largeFile = 10e6;

/** A file of the repository, or of the folder. */
interface SizedFile {
  readonly path: string;
  readonly size: number;
}

/** What the hub holds of a path: git's hash, and of a large file its SHA-256. */
interface Held {
  readonly oid: string | undefined;
  readonly sha256: string | undefined;
}

/** Where a push goes, and by whose leave. */
export interface PushOptions {
  /** "org/name". */
  readonly repo: string;
  /** Whether anybody may see a repository that is made anew. */
  readonly isPublic: boolean;
}

export interface Pushed {
  readonly url: string;
  /** Files that were uploaded, and those that were there already. */
  readonly uploaded: readonly string[];
  readonly kept: readonly string[];
}

/** What every call to the hub is given. */
interface Access {
  readonly hubUrl: string;
  readonly accessToken: string;
  readonly repo: { readonly type: "model"; readonly name: string };
}

/** What git calls a file's content. */
async function gitHash(path: string, size: number): Promise<string> {
  const hash = createHash("sha1").update(`blob ${size}\0`);
  const stream: AsyncIterable<Buffer> = createReadStream(path);
  for await (const chunk of stream) hash.update(chunk);
  return hash.digest("hex");
}

/** Whether the hub holds a file's content already. */
async function isHeld(path: string, size: number, held: Held | undefined): Promise<boolean> {
  if (held?.sha256 !== undefined) return held.sha256 === (await sha256(path));
  return held?.oid !== undefined && held.oid === (await gitHash(path, size));
}

/** The files of a repository; none of one that is new. */
async function filesOf(access: Access): Promise<Map<string, Held>> {
  const { listFiles } = await import("@huggingface/hub");
  const found = new Map<string, Held>();
  for await (const { path, type, oid, lfs } of listFiles({ ...access, recursive: true }))
    if (type === "file") found.set(path, { oid, sha256: lfs?.oid });
  return found;
}

/** Makes the repository unless it is there. @returns its files */
async function openRepository(
  access: Access,
  isPublic: boolean,
  hooks: HubHooks,
): Promise<Map<string, Held>> {
  const { createRepo, repoExists } = await import("@huggingface/hub");
  if (await repoExists(access)) return filesOf(access);
  const visibility = isPublic ? "public" : "private";
  await createRepo({ ...access, visibility });
  hooks.note(`made ${access.repo.name}, ${visibility}`);
  return new Map();
}

/** What a hub's refusal means for the user. */
function refusal(error: unknown, { repo, hubUrl }: Access): unknown {
  const status = statusOf(error);
  if (status === 401 || status === 403)
    return new UserError(
      `${repo.name}: ${hubUrl} does not let this token write there (${status}); log in with one that may ` +
        "(hf auth login)",
    );
  return error;
}

/** Weights of an earlier result: beside other ones, a reader would not know which to take. */
const weightNames = /\.(safetensors|bin)$|\.index\.json$/;

/** Commits files, and takes stale ones away, in one commit. */
async function commitFiles(
  access: Access,
  folder: string,
  files: readonly SizedFile[],
  stale: readonly string[] = [],
): Promise<void> {
  const { commit } = await import("@huggingface/hub");
  const [first, ...more] = files.map(({ path }) => path);
  await commit({
    ...access,
    // Its chunks are uploaded whole: what breaks off is uploaded anew.
    useXet: false,
    title: `Upload ${first ?? "nothing"}${more.length > 0 ? ` and ${more.length} more` : ""} with train-merge`,
    operations: [
      ...stale.map((path) => ({ operation: "delete" as const, path })),
      ...files.map(({ path }) => ({
        operation: "addOrUpdate" as const,
        path,
        content: pathToFileURL(join(folder, path)),
      })),
    ],
  });
}

/**
 * Uploads files of a folder: large ones first, a commit each, then all others in one, so that a model whose upload
 * breaks off is none yet. Run again, it goes on.
 * @param paths within the folder, with slashes
 * @throws UserError where nobody is logged in, or the hub refuses
 */
export async function pushFolder(
  folder: string,
  paths: readonly string[],
  { repo: name, isPublic }: PushOptions,
  hooks: HubHooks,
): Promise<Pushed> {
  if (!/^[\w.-]+\/[\w.-]+$/.test(name))
    throw new UserError(`--to ${name}: a repository is named by its owner and its name: --to org/name`);
  const accessToken = await userToken();
  if (accessToken === undefined)
    throw new UserError("nobody is logged in to the hub: hf auth login, or set HF_TOKEN");
  if (!accessToken.startsWith("hf_"))
    throw new UserError("HF_TOKEN, or the token of hf auth login, is none of the hub's: they begin with hf_");
  const access: Access = { hubUrl: endpoint(), accessToken, repo: { type: "model", name } };
  try {
    const held = await openRepository(access, isPublic, hooks);
    const kept: string[] = [];
    const missing: SizedFile[] = [];
    for (const path of paths) {
      const { size } = await stat(join(folder, path));
      if (await isHeld(join(folder, path), size, held.get(path))) kept.push(path);
      else missing.push({ path, size });
    }
    const large = missing.filter(({ size }) => size > largeFile);
    const filled = new Set(paths.filter((path) => weightNames.test(path)).map((path) => dirname(path)));
    const stale = [...held.keys()].filter(
      (path) => weightNames.test(path) && filled.has(dirname(path)) && !paths.includes(path),
    );
    let done = 0;
    for (const one of large) {
      hooks.progress("files uploaded", done++, missing.length);
      await commitFiles(access, folder, [one]);
    }
    const small = missing.filter(({ size }) => size <= largeFile);
    if (small.length > 0 || stale.length > 0) await commitFiles(access, folder, small, stale);
    done += small.length;
    if (stale.length > 0) hooks.note(`removed from ${name}: ${stale.join(", ")}`);
    hooks.progress("files uploaded", done, missing.length);
    return { url: `${access.hubUrl}/${name}`, uploaded: missing.map(({ path }) => path), kept };
  } catch (error) {
    throw refusal(error, access);
  }
}
