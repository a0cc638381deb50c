import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { packageFolder } from "../../src/package.js";

/** The command line as a user runs it, on the build (`npm test` builds before it tests). */
export const main = join(packageFolder, "dist", "src", "cli", "main.js");

export interface Finished {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs `train-merge` in a folder. */
export const cliIn =
  (folder: string) =>
  async (...args: string[]): Promise<Finished> => {
    try {
      return { code: 0, ...(await promisify(execFile)(process.execPath, [main, ...args], { cwd: folder })) };
    } catch (error) {
      const { code, stdout, stderr } = error as Finished;
      return { code, stdout, stderr };
    }
  };

export const json = async <T>(path: string): Promise<T> => JSON.parse(await readFile(path, "utf8")) as T;

/** Every file below a folder but those that tell times. */
export async function contents(
  root: string,
  timed: readonly string[] = ["run.json", "report.html"],
): Promise<Map<string, string>> {
  const files = (await readdir(root, { recursive: true, withFileTypes: true })).filter(
    (entry) => entry.isFile() && !timed.includes(entry.name),
  );
  const read = files.map(async (entry) => {
    const path = join(entry.parentPath, entry.name);
    return [path.slice(root.length), (await readFile(path)).toString("base64")] as const;
  });
  return new Map((await Promise.all(read)).sort(([a], [b]) => a.localeCompare(b)));
}
