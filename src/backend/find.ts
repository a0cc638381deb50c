/** Where things lie that are not this package: other packages, libraries of the system, the engine that was built. */
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";

/** Finds a package beside train-merge or in the folder the user stands in; undefined where neither has it. */
export function findPackage(name: string): string | undefined {
  for (const from of [import.meta.url, pathToFileURL(join(process.cwd(), "package.json")).href]) {
    try {
      return createRequire(from).resolve(name);
    } catch {
      // not installed there
    }
  }
  return undefined;
}

/** The list of libraries that ldconfig writes. */
export const linkerList = "/etc/ld.so.cache";

/** Folders that the linker looks through beside its list. */
export const linkerFolders = (): string[] => [
  ...(process.env["LD_LIBRARY_PATH"] ?? "").split(":").filter(Boolean),
  "/lib",
  "/usr/lib",
  "/lib64",
  "/usr/lib64",
];

/**
 * Whether the linker finds a library: by its list, or in a folder that it looks through. Without a list (on a system
 * that keeps none) it is not judged: true.
 */
export const linkerFinds = (library: string, list: string, folders: readonly string[]): boolean =>
  !existsSync(list) ||
  readFileSync(list).includes(`${library}\0`) ||
  folders.some((folder) => existsSync(join(folder, library)));

/** Where train-merge keeps what it builds for this user: TRAIN_MERGE_CACHE, or the platform's own place. */
export function cacheFolder(): string {
  const { TRAIN_MERGE_CACHE, XDG_CACHE_HOME, LOCALAPPDATA } = process.env;
  if (TRAIN_MERGE_CACHE) return TRAIN_MERGE_CACHE;
  if (process.platform === "darwin") return join(homedir(), "Library", "Caches", "train-merge");
  if (process.platform === "win32" && LOCALAPPDATA) return join(LOCALAPPDATA, "train-merge", "Cache");
  return join(XDG_CACHE_HOME || join(homedir(), ".cache"), "train-merge");
}

/** The TensorFlow engine that `train-merge setup native` built; node and node-gpu look here first. */
export const nativeFolder = (): string => join(cacheFolder(), "native");

/** The tfjs-node inside a folder that `setup native` filled. */
export const addonPackage = (folder: string): string =>
  join(folder, "node_modules", "@tensorflow", "tfjs-node");
