/** One writer a folder: a note in the temporary folder says who writes to it. */
import { createHash } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { errorCode, UserError } from "../errors.js";

const note = z.object({ pid: z.number(), started: z.string(), folder: z.string() });
type Note = z.infer<typeof note>;

/** When a process began, where the system tells: a number is given to another process some day. */
function startOf(pid: number): string {
  try {
    const [, fields = ""] = /\)\s(.*)$/s.exec(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? [];
    return fields.split(" ")[19] ?? "";
  } catch {
    return "";
  }
}

/** Whether the process of a note still runs. */
function isAlive({ pid, started }: Note): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (errorCode(error) !== "EPERM") return false;
  }
  return startOf(pid) === started;
}

const held = new Set<string>();

/** Notes that this process writes to a folder, as long as it runs. @returns false where there is a note */
async function write(path: string, folder: string): Promise<boolean> {
  try {
    const own: Note = { pid: process.pid, started: startOf(process.pid), folder };
    await writeFile(path, JSON.stringify(own), { flag: "wx" });
  } catch (error) {
    if (errorCode(error) === "EEXIST") return false;
    throw error;
  }
  if (held.size === 0)
    process.on("exit", () => {
      for (const one of held) rmSync(one, { force: true });
    });
  held.add(path);
  return true;
}

/** Who writes to a folder by its note; undefined where the note is damaged or gone. */
async function readNote(path: string): Promise<Note | undefined> {
  try {
    return note.safeParse(JSON.parse(await readFile(path, "utf8"))).data;
  } catch {
    return undefined;
  }
}

/** How long a run waits for one that is just about to end: a node whose tree was killed. Milliseconds. */
const lockPatience = 5000;

/**
 * Claims a folder for this process. @param folder its real path
 * @throws UserError where another process that runs on this machine goes on writing to it
 */
export async function claimFolder(folder: string): Promise<void> {
  const locks = join(tmpdir(), `train-merge-${process.getuid?.() ?? "user"}-locks`);
  await mkdir(locks, { recursive: true });
  const path = join(locks, createHash("sha256").update(folder).digest("hex").slice(0, 32));
  const begun = performance.now();
  while (!held.has(path) && !(await write(path, folder))) {
    const other = await readNote(path);
    if (!other || other.folder !== folder || !isAlive(other)) await rm(path, { force: true });
    else if (performance.now() - begun < lockPatience) await sleep(100);
    else
      throw new UserError(
        `--out ${folder}: another run writes to it (process ${other.pid}); wait for it, stop it, or choose ` +
          "another folder",
      );
  }
}
