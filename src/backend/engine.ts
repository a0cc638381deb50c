/** What an engine is, and where its parts lie: packages, libraries of the system, the engine that was built. */
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { freemem, homedir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** What an engine may take of its device's memory. */
export interface DeviceMemory {
  readonly bytes: number;
  /** Where the number comes from, for people. */
  readonly from: string;
  /** It is the host's memory: what the one takes, the other lacks. */
  readonly shared: boolean;
}

/** Memory that this process may still take: what is free, or what its container leaves it. */
export function freeMemory(): number {
  const limit = process.constrainedMemory?.();
  if (!limit) return freemem();
  return Math.min(freemem(), Math.max(0, limit - process.memoryUsage().rss));
}

/** Of an engine that computes in the host's memory. */
export const memoryOfHost = (): DeviceMemory => ({
  bytes: 0.8 * freeMemory(),
  from: "four fifths of the free memory",
  shared: true,
});

/** Of a card that does not say how much it has. @param backend tfjs's name of the engine */
export const guessedMemory = (backend: string): DeviceMemory => ({
  bytes: 4 * 2 ** 30,
  from: `a guess: ${backend} does not tell; --memory-budget sets it`,
  shared: false,
});

/** Why an engine cannot run, with the line that mends just that. */
export class EngineProblem extends Error {
  constructor(
    message: string,
    readonly mend: string,
  ) {
    super(message);
  }
}

/** Of an engine that runs on any card. */
export const noCard = (): EngineProblem =>
  new EngineProblem(
    "no card with a Vulkan, Metal or D3D12 driver was found",
    "install the card's driver (on Linux its Vulkan driver and libvulkan1), or use another engine",
  );

/** An engine that was loaded. */
export interface Loaded {
  /** tfjs's own name for it. */
  readonly backend: string;
  /** What it runs on, for people: a version, a card, a number of threads. */
  readonly text: string;
  /** A card that is only emulated on the CPU: good for tests, and never taken by `auto`. */
  readonly emulated?: boolean;
}

/**
 * All that is known of an engine. The file that has it imports tfjs inside of `load` only: the list of engines is read
 * by every command, and most start none of them.
 */
export interface Engine<Name extends string = string> {
  readonly name: Name;
  readonly what: string;
  /** What must be there, for people. */
  readonly needs: string;
  /** Which cards it was run on, by date, and what stands untested; for those that need one. */
  readonly tried?: string;
  /** The one line that makes it available, where the problem has none of its own. */
  readonly mend: string;
  /**
   * Its tensors lie in a heap that each process has for itself: processes do not share it, and no budget lifts its
   * bound. Otherwise they lie in the machine's memory or a card's, which all processes share.
   */
  readonly ownHeap: boolean;
  /** What it may take of its device's memory; asked when it runs. */
  deviceMemory(): DeviceMemory;
  /** @throws Error saying in a line why it cannot run, EngineProblem where it knows what mends that */
  load(threads?: number): Promise<Loaded>;
}

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

/** What silences stderr while its TensorFlow loads. */
export const quietLibrary = (folder: string): string => join(folder, "quiet.node");

/** The tfjs-node inside a folder that `setup native` filled. */
export const addonPackage = (folder: string): string =>
  join(folder, "node_modules", "@tensorflow", "tfjs-node");
