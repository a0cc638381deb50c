import { existsSync } from "node:fs";
import { join } from "node:path";
import type { z } from "zod";
import { readJson, writeText } from "../checkpoint/files.js";
import { UserError } from "../errors.js";

/** A JSON file of a fixed name and shape: it is written, read and checked by one schema. */
export interface JsonFile<S extends z.ZodType> {
  readonly name: string;
  readonly schema: S;
  /** Keys by which a folder that holds this file is known to be written by train-merge. */
  readonly marks: readonly string[];
  /** Where it lies in a folder. */
  in(folder: string): string;
  exists(folder: string): boolean;
  /**
   * What a folder's file says; undefined where the folder has none.
   * @throws UserError where it is damaged or of another version
   */
  read(folder: string): Promise<z.output<S> | undefined>;
  /** The same, and undefined for a damaged file or one of another version: for what can be made again. */
  readIfSound(folder: string): Promise<z.output<S> | undefined>;
  write(folder: string, value: z.input<S>): Promise<void>;
}

/** @param options.compact written on one line: for long lists of numbers */
export function jsonFile<S extends z.ZodType>(
  name: string,
  schema: S,
  { marks = [], compact = false }: { marks?: readonly string[]; compact?: boolean } = {},
): JsonFile<S> {
  const pathIn = (folder: string): string => join(folder, name);
  async function read(folder: string): Promise<z.output<S> | undefined> {
    const path = pathIn(folder);
    if (!existsSync(path)) return undefined;
    const parsed = schema.safeParse(await readJson(path));
    if (parsed.success) return parsed.data;
    const where = parsed.error.issues[0]?.path.join(".");
    throw new UserError(`${path}: not written by this version of train-merge${where ? ` (${where})` : ""}`);
  }
  return {
    name,
    schema,
    marks,
    in: pathIn,
    exists: (folder) => existsSync(pathIn(folder)),
    read,
    readIfSound: (folder) =>
      read(folder).catch((error: unknown) => {
        if (error instanceof UserError) return undefined;
        throw error;
      }),
    write: (folder, value) =>
      writeText(pathIn(folder), `${JSON.stringify(value, undefined, compact ? 0 : 2)}\n`),
  };
}
