/** SHA-256 of the files that a merge reads, by threads beside it. */
import { realpath, stat } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { Worker } from "node:worker_threads";
import { sha256 } from "../checkpoint/files.js";
import { UserError } from "../errors.js";

/** A file of an input. */
export interface InputHash {
  readonly folder: string;
  readonly file: string;
  readonly sha256: string;
}

/** What is read. */
export interface ReadFiles {
  readonly read: readonly { readonly folder: string; readonly files: readonly string[] }[];
  /** @throws UserError where one was changed since it was opened */
  check(): Promise<void>;
}

// From TypeScript sources (in tests) there is no file that a thread could run.
const runnable = !import.meta.url.endsWith(".ts");

/** What the hub's cache calls a large file: its SHA-256, which was checked when it was fetched. */
async function blobHash(path: string): Promise<string | undefined> {
  const real = await realpath(path);
  if (basename(dirname(real)) !== "blobs") return undefined;
  return /^[0-9a-f]{64}$/.exec(basename(real))?.[0];
}

/** Has a thread work out hashes for as long as there are paths. */
function workThrough(worker: Worker, paths: string[], found: Map<string, string>): Promise<void> {
  return new Promise((resolve, reject) => {
    let current: string | undefined;
    const next = () => {
      current = paths.shift();
      if (current === undefined) resolve();
      else worker.postMessage(current);
    };
    worker.on("error", reject);
    worker.on("message", ({ hash, failed }: { hash?: string; failed?: string }) => {
      if (current === undefined || hash === undefined) reject(new UserError(`${current}: ${failed}`));
      else found.set(current, hash);
      next();
    });
    next();
  });
}

/** Beyond this files would be fetched from the disk twice: they are not held in memory for so long. */
const mostBytes = totalmem() / 4;

async function bytesOf(paths: readonly string[]): Promise<number> {
  let bytes = 0;
  for (const path of paths) bytes += (await stat(path)).size;
  return bytes;
}

/**
 * Hashes of the files of some folders. Of files that the hub's cache names by their hashes these are taken; others are
 * read, where all of them together are no more than a quarter of the machine's memory.
 * @param threads as many as the machine has cores by default; 0: in this one
 */
export async function hashInputs(
  inputs: ReadFiles["read"],
  threads = availableParallelism(),
): Promise<InputHash[]> {
  const all = inputs.flatMap(({ folder, files }) => files.map((file) => ({ folder, file })));
  const found = new Map<string, string>();
  const left: string[] = [];
  for (const path of new Set(all.map(({ folder, file }) => join(folder, file)))) {
    const known = await blobHash(path);
    if (known === undefined) left.push(path);
    else found.set(path, known);
  }
  if ((await bytesOf(left)) > mostBytes) left.length = 0;
  const workers = Array.from(
    { length: Math.min(left.length, threads) * Number(runnable) },
    () => new Worker(new URL("./hash-thread.js", import.meta.url)),
  );
  try {
    await Promise.all(workers.map((worker) => workThrough(worker, left, found)));
  } finally {
    await Promise.all(workers.map((worker) => worker.terminate()));
  }
  for (const path of left) found.set(path, await sha256(path));
  return all.flatMap(({ folder, file }) => {
    const hashes = [found.get(join(folder, file))].filter((one) => one !== undefined);
    return hashes.map((hash) => ({ folder: resolve(folder), file, sha256: hash }));
  });
}

/**
 * Does some work while the files that it reads are hashed.
 * @throws UserError where one of them was changed meanwhile
 */
export async function whileHashing(
  { read, check }: ReadFiles,
  threads: number | undefined,
  work: () => Promise<void>,
): Promise<{ readonly inputs: readonly InputHash[] }> {
  const hashing = hashInputs(read, threads);
  // Where the work fails first, nobody waits for it.
  hashing.catch(() => undefined);
  await work();
  const inputs = await hashing;
  await check();
  return { inputs };
}
