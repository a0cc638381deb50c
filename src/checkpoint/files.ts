import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { UserError } from "../errors.js";

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
    if (error instanceof Error && "code" in error) (error as NodeJS.ErrnoException).path = path;
    throw error;
  }
}

/** Writes a text or JSON file atomically. An object is written as indented JSON. */
export async function writeText(path: string, content: string | object): Promise<void> {
  const text = typeof content === "string" ? content : `${JSON.stringify(content, undefined, 2)}\n`;
  await atomicFile(path, (write) => write(new TextEncoder().encode(text)));
}

/** Parses a JSON file. @throws UserError naming the file when it is missing or not JSON. */
export async function readJson(path: string): Promise<unknown> {
  const text = await readFile(path, "utf8");
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UserError(`${path}: not valid JSON (${(error as Error).message})`);
  }
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
  const marked = text.replace(/"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g, (token) =>
    token.startsWith('"') ? token : `"${mark}${token}"`,
  );
  const edited = JSON.stringify(change(JSON.parse(marked) as Record<string, unknown>), undefined, 2);
  return `${edited.replace(new RegExp(`"${mark}([^"]*)"`, "g"), "$1")}\n`;
}

/** SHA-256 of a file's bytes, streamed. */
export async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** A digest of plain data, whatever the order of its keys. */
export function digest(value: unknown): string {
  const ordered = (_: string, v: unknown): unknown =>
    typeof v === "object" && v !== null && !Array.isArray(v)
      ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : 1)))
      : v;
  return createHash("sha256").update(JSON.stringify(value, ordered)).digest("hex");
}
