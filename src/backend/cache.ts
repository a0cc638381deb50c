import { homedir } from "node:os";
import { join } from "node:path";

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
