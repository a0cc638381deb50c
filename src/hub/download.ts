import { createHash, type Hash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { UserError } from "../errors.js";

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
  readonly progress: (bytes: number) => void;
}

const attempts = 5;

const hashFor = ({ large, size }: HubFile): Hash =>
  large ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);

async function hashOf(path: string, file: HubFile): Promise<string> {
  const hash = hashFor(file);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** Appends what is missing of a file. @returns false where the connection broke: there may be more to get */
async function append(
  path: string,
  file: HubFile,
  { url, headers, progress }: DownloadOptions,
): Promise<boolean> {
  const have = existsSync(path) ? (await stat(path)).size : 0;
  if (have === file.size) return true;
  if (have > file.size) await rm(path);
  const from = have > file.size ? 0 : have;
  let response: Response;
  try {
    response = await fetch(url, { headers: { ...headers, ...(from > 0 && { Range: `bytes=${from}-` }) } });
  } catch {
    return false;
  }
  if (response.status === 401 || response.status === 403)
    throw new UserError(
      `${url}: access is denied (${response.status}); accept the model's terms on its page, or ` +
        "log in (huggingface-cli login, or HF_TOKEN)",
    );
  if (response.status === 404) throw new UserError(`${url}: there is no such file`);
  if (response.status === 416) {
    await rm(path, { force: true });
    return false;
  }
  if (!response.ok || !response.body) {
    await response.body?.cancel();
    if (response.status >= 400 && response.status < 500 && response.status !== 408 && response.status !== 429)
      throw new UserError(`${url}: the hub answers ${response.status}`);
    return false;
  }
  // A server that does not know ranges sends all of it.
  const resumed = response.status === 206;
  const handle = await open(path, resumed ? "a" : "w");
  let at = resumed ? from : 0;
  try {
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      at += chunk.length;
      // Never more than was said: a damaged answer must not fill the disk.
      if (at > file.size)
        throw new UserError(`${url}: it sends more than the ${file.size} bytes that the hub lists`);
      await handle.write(chunk);
      progress(at);
    }
    await handle.sync();
  } catch (error) {
    if (
      error instanceof UserError ||
      (error instanceof Error &&
        "code" in error &&
        String(error.code).startsWith("E") &&
        error.code !== "ECONNRESET")
    )
      throw error;
    return false;
  } finally {
    await handle.close();
  }
  return at === file.size;
}

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
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
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
  return own;
}

/**
 * Fetches a file to `path`: what an earlier try got is gone on from, a broken connection is taken up
 * again, and the bytes must hash to what the hub lists. Nothing has the name before all of that.
 * @throws UserError where it cannot be had, or is another file
 */
export async function download(path: string, file: HubFile, options: DownloadOptions): Promise<void> {
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
        `${options.url}: the connection broke, or the hub was busy, ${attempts} times; what was ` +
          "fetched is kept, the same command goes on from there",
      );
    if (file.size === 0 && !existsSync(incomplete)) await (await open(incomplete, "w")).close();
    if ((await hashOf(incomplete, file)) === file.oid) {
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
