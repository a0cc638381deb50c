// Sets up what is missing (packages, build), then does one thing: `run` the command line or `test` the project.
// Plain JavaScript, because it runs before anything is installed.
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { refuseLongLines } from "./long-lines.mjs";
import { softwareVulkan } from "./software-vulkan.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const [what, ...args] = process.argv.slice(2);
/** What the formatter looks after; package.json's `format` names the same. */
const formatted = ["src", "test", "scripts", "experiments", "vitest.config.ts"];

/** Runs a command in the project's folder (or where the user stands); ends this process where it fails. */
function run(command, parameters, cwd = root) {
  // npm is a script on Windows, which only a shell can start.
  const { status, signal } = spawnSync(command, parameters, {
    cwd,
    stdio: "inherit",
    shell: process.platform === "win32" && command === "npm",
  });
  if (signal) process.exit(130);
  if (status !== 0) process.exit(status ?? 1);
}

const modified = (path) => (existsSync(path) ? statSync(path).mtimeMs : 0);
const tool = (name) => join(root, "node_modules", name);

if (modified(join(root, "node_modules", ".package-lock.json")) < modified(join(root, "package-lock.json"))) {
  console.error("setting up: fetching packages (npm ci)");
  run("npm", ["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
}
console.error("setting up: compiling");
run(process.execPath, [tool("typescript/bin/tsc"), "-p", root]);

if (what === "run") {
  const given = args.length ? args : ["--tasks", "rte,cb,copa", "--overwrite"];
  run(
    process.execPath,
    [join(root, "dist", "src", "cli", "main.js"), ...given],
    process.env.INIT_CWD ?? process.cwd(),
  );
} else {
  run(process.execPath, [tool("oxfmt/bin/oxfmt"), "--check", ...formatted]);
  refuseLongLines(root, formatted);
  run(process.execPath, [tool("oxlint/bin/oxlint"), "--deny-warnings", "--type-aware"]);
  Object.assign(process.env, softwareVulkan(root));
  run(process.execPath, [tool("vitest/vitest.mjs"), "run", ...args]);
}
