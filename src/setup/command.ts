import { spawn } from "node:child_process";
import { UserError } from "../errors.js";

/**
 * Runs a program to its end and returns what it printed on stdout.
 * @param problem what to tell the user when it fails; the last line of its own message is added
 */
export function runCommand(
  command: string,
  args: readonly string[],
  problem: string,
  cwd?: string,
): Promise<string> {
  return new Promise((resolve, reject) => {
    // npm is a script on Windows, which only a shell can start.
    const child = spawn(command, [...args], {
      cwd,
      stdio: ["ignore", "pipe", "pipe"],
      shell: process.platform === "win32" && command === "npm",
    });
    let out = "";
    let complaint = "";
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (complaint = (complaint + chunk.toString()).slice(-20_000)));
    const fail = (why: string) => reject(new UserError(`${problem} (${why})`));
    child.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") fail(`${command} is not installed`);
      else fail(error.message);
    });
    child.on("close", (code) => {
      if (code === 0) return resolve(out);
      const lines = complaint.trim().split("\n");
      fail(
        lines.find((line) => /error/i.test(line))?.trim() ?? lines.at(-1) ?? `${command} exited with ${code}`,
      );
    });
  });
}
