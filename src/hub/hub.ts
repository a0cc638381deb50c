import { existsSync } from "node:fs";
import { mkdir, readFile, symlink } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, relative } from "node:path";
import { writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { download, type HubFile } from "./download.js";

/** A model on the hub: "org/name", or "org/name@revision" with a branch, a tag or a commit. */
export interface HubId {
  readonly name: string;
  readonly revision: string;
}

/** What looks like a hub id and is no folder here. */
export function hubId(text: string): HubId | undefined {
  if (existsSync(text)) return undefined;
  const match = /^([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?:@([\w][\w./-]*))?$/.exec(text);
  return match && !match[2]?.includes("..") ? { name: match[1]!, revision: match[2] ?? "main" } : undefined;
}

/** The id of what lies in a folder of the hub's cache, pinned to its commit; undefined elsewhere. */
export function idOfSnapshot(folder: string): string | undefined {
  const match = /[\\/]models--([\w.-]+?)--([\w.-]+)[\\/]snapshots[\\/]([0-9a-f]{40})[\\/]?$/.exec(folder);
  return match ? `${match[1]!}/${match[2]!}@${match[3]!}` : undefined;
}

/** What a model, an adapter, a tokenizer or an image processor consists of. */
const wantedFiles = new Set([
  "config.json",
  "model.safetensors.index.json",
  "adapter_config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.txt",
  "vocab.json",
  "merges.txt",
  "spiece.model",
  "tokenizer.model",
  "sentencepiece.bpe.model",
  "preprocessor_config.json",
  "chat_template.jinja",
]);
const isWanted = (name: string): boolean =>
  wantedFiles.has(name) || /^(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors$/.test(name);

const endpoint = (): string => (process.env["HF_ENDPOINT"] ?? "https://huggingface.co").replace(/\/+$/, "");
const offline = (): boolean =>
  ["1", "true", "yes", "on"].includes((process.env["HF_HUB_OFFLINE"] ?? "").toLowerCase());

/** The user's token, from its standard places; it goes into a header and nowhere else. */
async function token(): Promise<string | undefined> {
  if (process.env["HF_TOKEN"]) return process.env["HF_TOKEN"].trim();
  const home =
    process.env["HF_HOME"] ?? join(process.env["XDG_CACHE_HOME"] ?? join(homedir(), ".cache"), "huggingface");
  const path = process.env["HF_TOKEN_PATH"] ?? join(home, "token");
  return existsSync(path) ? (await readFile(path, "utf8")).trim() || undefined : undefined;
}

/** A model out of the cache, without asking anybody. */
async function fromCache(
  folder: string,
  { name, revision }: HubId,
  why: string,
): Promise<{ folder: string; commit: string }> {
  const ref = join(folder, "refs", revision);
  const named = existsSync(ref) ? (await readFile(ref, "utf8")).trim() : undefined;
  const commit = /^[0-9a-f]{40}$/.test(revision) ? revision : named;
  const snapshot = commit === undefined ? undefined : join(folder, "snapshots", commit);
  if (snapshot === undefined || !/^[0-9a-f]{40}$/.test(commit!) || !existsSync(snapshot))
    throw new UserError(`${name}@${revision}: it is not in the cache (${folder}), and ${why}`);
  return { folder: snapshot, commit: commit! };
}

export interface HubHooks {
  note(message: string): void;
  progress(phase: string, done: number, of: number): void;
}

/**
 * Brings a model from the hub into its usual cache (blobs by hash, snapshots of links, refs), and says
 * where it lies. Files that are there are not fetched again; the revision is pinned to its commit.
 * HF_HUB_OFFLINE, HF_ENDPOINT, HF_HOME and HF_TOKEN are heeded.
 */
export async function fetchModel(id: HubId, hooks: HubHooks): Promise<{ folder: string; commit: string }> {
  // Only here: most runs need nothing of the hub.
  const { getHFHubCachePath, getRepoFolderName, listFiles, modelInfo } = await import("@huggingface/hub");
  const { name, revision } = id;
  const cache = join(getHFHubCachePath(), getRepoFolderName({ name, type: "model" as const }));
  if (offline()) return fromCache(cache, id, "HF_HUB_OFFLINE is set");
  const accessToken = await token();
  const common: { hubUrl: string; accessToken?: string } = { hubUrl: endpoint() };
  if (accessToken !== undefined) common.accessToken = accessToken;
  let commit: string;
  const files: HubFile[] = [];
  try {
    const info = await modelInfo({ ...common, name, revision, additionalFields: ["sha"] });
    commit = info.sha;
    if (!/^[0-9a-f]{40}$/.test(commit)) throw new UserError(`${name}@${revision}: the hub names no commit`);
    for await (const { path, type, size, oid, lfs } of listFiles({
      ...common,
      repo: { name, type: "model" },
      revision: commit,
    })) {
      if (type === "file" && isWanted(path))
        files.push({ path, size: lfs?.size ?? size, oid: lfs?.oid ?? oid ?? "", large: lfs !== undefined });
    }
  } catch (error) {
    if (error instanceof UserError) throw error;
    const status = (error as { statusCode?: number }).statusCode;
    if (status === 401 || status === 403 || status === 404)
      throw new UserError(
        `${name}@${revision}: the hub has no such model, or access is denied (${status}); a ` +
          "private or gated one needs a login (huggingface-cli login, or HF_TOKEN)",
      );
    const cached = await fromCache(
      cache,
      id,
      `${endpoint()} cannot be reached (${error instanceof Error ? error.message : String(error)})`,
    );
    hooks.note(
      `${endpoint()} cannot be reached: ${name}@${revision} is taken from the cache as it was ` +
        `(${cached.commit.slice(0, 12)})`,
    );
    return cached;
  }
  if (!files.some(({ path }) => path.endsWith(".safetensors")))
    throw new UserError(
      `${name}@${revision}: it holds no safetensors; convert it (save_pretrained does so by default)`,
    );
  const snapshot = join(cache, "snapshots", commit);
  for (const file of files) {
    if (!/^[0-9a-f]{40}([0-9a-f]{24})?$/.test(file.oid))
      throw new UserError(`${name}: the hub lists "${file.path}" with a hash that is none`);
    const [blob, link] = [join(cache, "blobs", file.oid), join(snapshot, file.path)];
    if (!existsSync(blob)) {
      await download(blob, file, {
        url: `${endpoint()}/${name}/resolve/${commit}/${file.path}`,
        // A redirect to another host does not carry it on: fetch sees to that.
        headers: accessToken === undefined ? {} : { Authorization: `Bearer ${accessToken}` },
        progress: (bytes) => hooks.progress(`${name}/${file.path}`, bytes, file.size),
      });
    }
    if (!existsSync(link)) {
      await mkdir(snapshot, { recursive: true });
      // Another run may have been here a moment before.
      await symlink(relative(dirname(link), blob), link).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error;
      });
    }
  }
  if (revision !== commit) await writeText(join(cache, "refs", revision), commit);
  hooks.note(`${name}@${revision} is ${commit.slice(0, 12)}, in ${snapshot}`);
  return { folder: snapshot, commit };
}
