import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, realpath, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { claimFolder } from "../../src/folder/lock.js";
import { temporaryFolder } from "../helpers.js";

const locks = join(tmpdir(), `train-merge-${process.getuid?.() ?? "user"}-locks`);
const noteOf = (folder: string): string =>
  join(locks, createHash("sha256").update(folder).digest("hex").slice(0, 32));

/** Notes that a process writes to a folder. */
async function noted(pid: number, started: string): Promise<string> {
  const folder = await realpath(await temporaryFolder());
  await mkdir(locks, { recursive: true });
  await writeFile(noteOf(folder), JSON.stringify({ pid, started, folder }));
  return folder;
}

test("a folder that another process writes to is refused by its number, and free when that has ended", async () => {
  const other = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"]);
  const stat = `/proc/${other.pid}/stat`;
  const started = existsSync(stat) ? (readFileSync(stat, "utf8").split(") ")[1]?.split(" ")[19] ?? "") : "";
  const folder = await noted(other.pid ?? 0, started);
  await expect(claimFolder(folder)).rejects.toThrow(`another run writes to it (process ${other.pid})`);
  const ended = new Promise((resolve) => other.on("exit", resolve));
  other.kill("SIGKILL");
  await ended;
  await claimFolder(folder);
});

test("a number that another process has by now, and a damaged note, keep nobody out", async () => {
  await claimFolder(await noted(process.ppid, "long ago"));
  const folder = await noted(1, "");
  await writeFile(noteOf(folder), "{");
  await claimFolder(folder);
  // This process may open it again.
  await claimFolder(folder);
  expect(existsSync(noteOf(folder))).toBe(true);
});
