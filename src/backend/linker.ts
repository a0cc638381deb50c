import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

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
