/** Files that are read for a long time: whether they are still what they were. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { UserError } from "../errors.js";
import type { Checkpoint } from "./folder.js";

const markOf = async (path: string): Promise<string> => {
  const { size, mtimeMs, ino } = await stat(path);
  return `${size} ${mtimeMs} ${ino}`;
};

/**
 * Remembers size and time of checkpoints' files.
 * @returns throws a UserError that names the first file that was changed since
 */
export async function watchFiles(
  checkpoints: readonly Pick<Checkpoint, "folder" | "files">[],
): Promise<() => Promise<void>> {
  const marks = new Map<string, string>();
  for (const { folder, files } of checkpoints)
    for (const file of files) {
      const path = join(folder, file);
      marks.set(path, await markOf(path));
    }
  return async () => {
    for (const [path, mark] of marks)
      if ((await markOf(path).catch(() => "gone")) !== mark)
        throw new UserError(
          `${path}: it was changed while it was read; the result would be of neither: run it again`,
        );
  };
}
