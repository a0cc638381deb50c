/** Where a task's files lie in a merge's folder, and lines without where anything lies. */
import { basename, join } from "node:path";
import { fileNames } from "./files.js";

/** Lines that go into a result's files: of a folder they keep the name alone, not where it lies. */
export function withoutPlaces(lines: readonly string[], folders: readonly string[]): string[] {
  const longestFirst = folders.toSorted((a, b) => b.length - a.length);
  return lines.map((line) =>
    longestFirst.reduce((text, folder) => text.replaceAll(folder, basename(folder)), line),
  );
}

/** The folder of a task's head in a merge's folder. */
export const headFolder = (folder: string, task: string): string => join(folder, fileNames.heads, task);

/** The folder of a task's whole model in a merge's folder. */
export const taskFolder = (folder: string, task: string): string => join(folder, fileNames.tasks, task);

/** The file of a task's head in a merge's folder. */
export const headPath = (folder: string, task: string): string =>
  join(headFolder(folder, task), fileNames.head);
