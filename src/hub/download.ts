import { createHash, type Hash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { fileHash } from "../checkpoint/files.js";
import { errorCode, UserError } from "../errors.js";
import { watchRequest, type HubBounds, type Watched } from "./bounds.js";

/** A file as the hub lists it. */
export interface HubFile {
  readonly path: string;
  readonly size: number;
  /** What its bytes hash to: SHA-256 of a large file, else git's SHA-1 of a blob. */
  readonly oid: string;
  readonly large: boolean;
}

export interface DownloadOptions {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly bounds: HubBounds;
  readonly progress: (bytes: number) => void;
}

const attempts = 5;

const hashFor = ({ large, size }: HubFile): Hash => {
  if (large) return createHash("sha256");
  return createHash("sha1").update(`blob ${size}\0`);
};

/** What trying once more would not mend. @throws UserError saying what it is */
function refuseStatus(url: string, status: number): void {
  if (status === 401 || status === 403)
    throw new UserError(
      `${url}: access is denied (${status}); accept the model's terms on its page, or ` +
        "log in (huggingface-cli login, or HF_TOKEN)",
    );
  if (status === 404) throw new UserError(`${url}: there is no such file`);
  // The hub is busy, or the range was wrong.
  if ([408, 416, 429].includes(status)) return;
  if (status >= 400 && status < 500) throw new UserError(`${url}: the hub answers ${status}`);
}

/** Asks for a file from a byte on. @returns undefined where the connection broke */
async function ask(
  { url, headers }: DownloadOptions,
  from: number,
  { signal }: Watched,
): Promise<Response | undefined> {
  const range = from > 0 && { Range: `bytes=${from}-` };
  try {
    return await fetch(url, { signal, headers: { ...headers, ...range } });
  } catch {
    return undefined;
  }
}

/** A full disk and the like, which are not the connection's. */
const isOfThisMachine = (error: unknown): boolean => {
  const code = errorCode(error);
  return code !== undefined && code.startsWith("E") && code !== "ECONNRESET";
};

/** Writes what the hub sends behind the first `from` bytes of a file. @returns whether it is all there */
async function writeBody(
  path: string,
  file: HubFile,
  { body, from }: { body: AsyncIterable<Uint8Array>; from: number },
  { url, progress, watched }: DownloadOptions & { readonly watched: Watched },
): Promise<boolean> {
  const handle = await open(path, from > 0 ? "a" : "w");
  let written = from;
  try {
    for await (const chunk of body) {
      written += chunk.length;
      watched.heard(chunk.length);
      // Never more than was said: a damaged answer must not fill the disk.
      if (written > file.size)
        throw new UserError(`${url}: it sends more than the ${file.size} bytes that the hub lists`);
      await handle.write(chunk);
      progress(written);
    }
    await handle.sync();
  } catch (error) {
    if (error instanceof UserError || isOfThisMachine(error)) throw error;
    return false;
  } finally {
    await handle.close();
  }
  return written === file.size;
}

/** How much of a file an earlier try got. */
async function bytesThere(path: string, file: HubFile): Promise<number> {
  if (!existsSync(path)) return 0;
  const { size } = await stat(path);
  if (size <= file.size) return size;
  await rm(path);
  return 0;
}

/** Fetches what is missing of a file. @returns false where the connection broke: there may be more to get */
async function fetchRest(
  path: string,
  file: HubFile,
  options: DownloadOptions,
  watched: Watched,
): Promise<boolean> {
  const from = await bytesThere(path, file);
  if (from === file.size) return true;
  const response = await ask(options, from, watched);
  if (!response) return false;
  const { status, ok, body } = response;
  if (!ok || !body) {
    await body?.cancel();
    refuseStatus(options.url, status);
    // There is no such range: from the start, then.
    if (status === 416) await rm(path, { force: true });
    return false;
  }
  // A server that does not know ranges sends all of it.
  const resumed = status === 206;
  return writeBody(path, file, { body, from: resumed ? from : 0 }, { ...options, watched });
}

/** Appends what is missing of a file. @returns false where there may be more to get */
async function append(path: string, file: HubFile, options: DownloadOptions): Promise<boolean> {
  const watched = watchRequest(options.bounds);
  try {
    return await fetchRest(path, file, options, watched);
  } finally {
    watched.end();
  }
}

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === "EPERM";
  }
};

/**
 * Where this process gathers a file: a name of its own, so that two that fetch one file at a time do
 * not write into each other's. What a process that is gone has left here is taken over by renaming it,
 * which only one can do.
 */
async function ownPart(path: string): Promise<string> {
  const prefix = `${basename(path)}.`;
  const own = `${path}.${hostname()}.${process.pid}.incomplete`;
  for (const name of (await readdir(dirname(path))).filter(
    (one) => one.startsWith(prefix) && one.endsWith(".incomplete"),
  )) {
    const [, host, pid] = /^(.+)\.(\d+)\.incomplete$/.exec(name.slice(prefix.length)) ?? [];
    if (host !== undefined && (host !== hostname() || alive(Number(pid)))) continue;
    try {
      await rename(join(dirname(path), name), own);
      break;
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
    }
  }
  return own;
}

/**
 * Fetches a file to `path`: what an earlier try got is gone on from, a broken connection is taken up
 * again, and the bytes must hash to what the hub lists. Nothing has the name before all of that.
 * @throws UserError where it cannot be had, or is another file
 */
export async function downloadFile(path: string, file: HubFile, options: DownloadOptions): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const incomplete = await ownPart(path);
  for (let wrong = 0; wrong < 2; wrong++) {
    let done = false;
    for (let attempt = 0; attempt < attempts && !done; attempt++) {
      if (attempt > 0) await new Promise((resolve) => void setTimeout(resolve, 200 * 2 ** attempt));
      done = await append(incomplete, file, options);
    }
    if (!done)
      throw new UserError(
        `${options.url}: the connection broke, or the hub was busy or silent, ${attempts} times; what was ` +
          "fetched is kept, the same command goes on from there",
      );
    if (file.size === 0 && !existsSync(incomplete)) await (await open(incomplete, "w")).close();
    if ((await fileHash(incomplete, hashFor(file))) === file.oid) {
      await rename(incomplete, path);
      return;
    }
    // Perhaps pieces of two versions: once more from the start.
    await rm(incomplete, { force: true });
  }
  throw new UserError(
    `${options.url}: its bytes do not hash to ${file.oid}, which the hub lists; it was changed on the way`,
  );
}
