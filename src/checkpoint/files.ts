import { stat, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { UserError, errorCode, messageOf } from "../errors.js";
import { existsSync, createReadStream, realpathSync } from "node:fs";
import type { z } from "zod";
import { createHash, randomBytes, type Hash } from "node:crypto";

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

/** Before a path that is told from the file's own folder: a folder that travels names no place of a machine. */
const relativePath = "path:";

/** Keys under which such files name places. */
const placeKeys = new Set(["base", "data", "folder", "from", "models", "places", "prompts"]);

/** A value whose texts under the keys of places are changed, however deep they stand in it. */
function withPlaces(value: unknown, change: (text: string) => string, isPlace = false): unknown {
  if (typeof value === "string") return isPlace ? change(value) : value;
  if (Array.isArray(value)) return value.map((one: unknown) => withPlaces(one, change, isPlace));
  if (!isRecord(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, withPlaces(one, change, isPlace || placeKeys.has(key))]),
  );
}

/** A folder by its real name: what is told from it must not depend on the link that it was reached by. */
const realFolder = (folder: string): string => (existsSync(folder) ? realpathSync(folder) : resolve(folder));

/**
 * @param options.compact written on one line: for long lists of numbers
 * @param options.paths whether absolute paths in it are written as seen from the folder, and read as absolute ones
 */
export function jsonFile<S extends z.ZodType>(
  name: string,
  schema: S,
  {
    marks = [],
    compact = false,
    paths = false,
  }: { marks?: readonly string[]; compact?: boolean; paths?: boolean } = {},
): JsonFile<S> {
  const fromFolder = (folder: string, value: unknown): unknown => {
    if (!paths) return value;
    return withPlaces(value, (text) => {
      if (!isAbsolute(text)) return text;
      return relativePath + relative(realFolder(folder), realFolder(text)).split(sep).join("/");
    });
  };
  const toAbsolute = (folder: string, value: unknown): unknown => {
    if (!paths) return value;
    return withPlaces(value, (text) => {
      if (!text.startsWith(relativePath)) return text;
      return resolve(realFolder(folder), text.slice(relativePath.length));
    });
  };
  const pathIn = (folder: string): string => join(folder, name);
  async function read(folder: string): Promise<z.output<S> | undefined> {
    const path = pathIn(folder);
    if (!existsSync(path)) return undefined;
    const parsed = schema.safeParse(toAbsolute(folder, await readJson(path)));
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
      writeText(pathIn(folder), `${JSON.stringify(fromFolder(folder, value), undefined, compact ? 0 : 2)}\n`),
  };
}

/** One write call's size: below the 2 GiB a single write can take. */
const writeChunk = 64 * 1024 * 1024;

/** Writes with `fill` to a temporary file beside `path`, then renames: a reader sees all of it or nothing. */
export async function atomicFile(
  path: string,
  fill: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${randomBytes(4).toString("hex")}.tmp`;
  try {
    const handle = await open(temporary, "wx");
    try {
      await fill(async (bytes) => {
        for (let done = 0; done < bytes.length;)
          done += (await handle.write(bytes, done, Math.min(writeChunk, bytes.length - done))).bytesWritten;
      });
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    // A failed write carries no path of its own, and the temporary name means nothing to a user.
    if (error instanceof Error && errorCode(error) !== undefined) Object.assign(error, { path });
    throw error;
  }
}

/** Writes a text or JSON file atomically. An object is written as indented JSON. */
export async function writeText(path: string, content: string | object): Promise<void> {
  const text = typeof content === "string" ? content : `${JSON.stringify(content, undefined, 2)}\n`;
  await atomicFile(path, (write) => write(new TextEncoder().encode(text)));
}

/** A string of JSON, or a number or what Python writes in the place of one. */
const jsonToken = /"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** JSON as Python writes it: a number may be Infinity or NaN, which is read as null. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const plain = text.replace(jsonToken, (token) => {
      if (token === "NaN") return "null";
      return /^-?Infinity$/.test(token) ? token.replace("Infinity", "1e999") : token;
    });
    if (plain === text) throw error;
    return JSON.parse(plain);
  }
}

/** JSON, YAML and lists of tokens that are longer are none of ours. Bytes. */
const longestText = 2 ** 29 - 2 ** 16;

/** @throws UserError where a path is a folder, or a pipe or device, which may have no end */
export async function refuseIrregular(path: string): Promise<void> {
  const found = await stat(path);
  if (found.isDirectory()) throw new UserError(`${path}: a folder stands where a file was expected`);
  if (!found.isFile()) throw new UserError(`${path}: it is a pipe or a device, not a file`);
}

/** Reads a text file whole. @throws UserError where it is no file, or too long to be what is looked for */
export async function readTextFile(path: string): Promise<string> {
  await refuseIrregular(path);
  const { size } = await stat(path);
  if (size > longestText) throw new UserError(`${path}: it is ${size} bytes long, which no such file is`);
  return readFile(path, "utf8");
}

/** Lists and objects within each other: more are taken for an attack on whoever reads them. */
const deepestJson = 500;

/** @throws UserError where JSON is nested so deeply that reading it would overflow the stack */
export function refuseDeep(text: string, path: string): void {
  let [depth, quoted] = [0, false];
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 34) quoted = !quoted;
    else if (quoted && code === 92) i++;
    else if (!quoted && (code === 91 || code === 123)) depth++;
    else if (!quoted && (code === 93 || code === 125)) depth--;
    if (depth > deepestJson) throw new UserError(`${path}: it is nested more than ${deepestJson} deep`);
  }
}

/** Parses a JSON file. @throws UserError naming the file when it is missing or not JSON. */
export async function readJson(path: string): Promise<unknown> {
  const text = await readTextFile(path);
  refuseDeep(text, path);
  try {
    return parseJson(text);
  } catch (error) {
    throw new UserError(`${path}: not valid JSON (${messageOf(error)})`);
  }
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Parses a JSON file that holds an object. @throws UserError naming the file when it does not */
export async function readJsonObject(path: string): Promise<Record<string, unknown>> {
  const value = await readJson(path);
  if (!isRecord(value)) throw new UserError(`${path}: not a JSON object`);
  return value;
}

/**
 * Changes a JSON object and leaves every number that is not changed as it was written: `1.0` stays
 * `1.0`, which to a reader in Python is another thing than `1`. New values are plain JSON.
 */
export function editJson(
  text: string,
  change: (object: Record<string, unknown>) => Record<string, unknown>,
): string {
  const mark = "\uE000";
  const marked = text.replace(jsonToken, (token) => (token.startsWith('"') ? token : `"${mark}${token}"`));
  const object: unknown = JSON.parse(marked);
  if (!isRecord(object)) throw new TypeError("a JSON object was expected");
  const edited = JSON.stringify(change(object), undefined, 2);
  return `${edited.replace(new RegExp(`"${mark}([^"]*)"`, "g"), "$1")}\n`;
}

/** Hash of a file's bytes, streamed, behind what `hash` was fed before. */
export async function fileHash(path: string, hash: Hash): Promise<string> {
  const chunks: AsyncIterable<Buffer> = createReadStream(path, { highWaterMark: 1 << 20 });
  for await (const chunk of chunks) hash.update(chunk);
  return hash.digest("hex");
}

/** SHA-256 of a file's bytes. */
export const sha256 = (path: string): Promise<string> => fileHash(path, createHash("sha256"));

/** A digest of plain data, whatever the order of its keys. */
export function digest(value: unknown): string {
  const ordered = (_: string, v: unknown): unknown =>
    typeof v === "object" && v !== null && !Array.isArray(v)
      ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : 1)))
      : v;
  return createHash("sha256").update(JSON.stringify(value, ordered)).digest("hex");
}

const markOf = async (path: string): Promise<string> => {
  const { size, mtimeMs, ino } = await stat(path);
  return `${size} ${mtimeMs} ${ino}`;
};

/**
 * Remembers size and time of checkpoints' files.
 * @returns throws a UserError that names the first file that was changed since
 */
export async function watchFiles(
  checkpoints: readonly { readonly folder: string; readonly files: readonly string[] }[],
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

/** What has to be closed or freed at the end, whatever happens in between: the last that was opened goes first. */
export class Resources {
  readonly #closers: (() => void | Promise<void>)[] = [];

  /** @param close called once, by {@link close} */
  add(close: () => void | Promise<void>): void {
    this.#closers.push(close);
  }

  /** Closes all, even where one fails; the first failure is thrown at the end. */
  async close(): Promise<void> {
    const failures: unknown[] = [];
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) {
      try {
        await close();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}
