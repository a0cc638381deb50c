// Runs a part of the tests, and a merge on every CPU engine that is set up, on the other Node versions that are
// promised: `node scripts/other-nodes.mjs`. npm fetches them; where it cannot, that is said and nothing fails.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const versions = ["22.23.3", "24.21.0"];
const tests = ["test/tasks", "test/checkpoint", "test/run/own-models.test.ts"];
const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const folder = mkdtempSync(join(tmpdir(), "train-merge-nodes-"));

/** Node's own program in npm's package of it. */
function programIn(name) {
  const packages = join(folder, "node_modules", name, "node_modules");
  if (!existsSync(packages)) return undefined;
  const programs = readdirSync(packages).map((one) =>
    join(packages, one, "bin", process.platform === "win32" ? "node.exe" : "node"),
  );
  return programs.find(existsSync);
}

let failed = false;
/** Runs a program; says where it fails. */
function run(program, args, cwd = root) {
  const { status, error } = spawnSync(program, args, { cwd, stdio: "inherit" });
  if (status === 0) return;
  failed = true;
  console.error(`${program} ${args.join(" ")}: ${error?.message ?? `exit code ${status}`}`);
}

try {
  const wanted = versions.map((version) => `node${version.split(".")[0]}@npm:node@${version}`);
  const fetched = spawnSync("npm", ["install", "--prefix", folder, "--no-audit", "--no-fund", ...wanted], {
    stdio: ["ignore", "ignore", "inherit"],
    shell: process.platform === "win32",
  });
  if (fetched.status !== 0)
    console.log("other Node versions could not be fetched: they are not tested in this run");
  for (const version of fetched.status === 0 ? versions : []) {
    const program = programIn(`node${version.split(".")[0]}`);
    if (!program) {
      console.log(`Node ${version} is not for this platform: it is not tested in this run`);
      continue;
    }
    console.log(`Node ${version}`);
    const main = join(root, "dist", "src", "cli", "main.js");
    for (const backend of ["auto", "wasm"]) {
      const out = join(folder, `${version}-${backend}`);
      const merge = ["--tasks", "rte,cb", "--steps", "1", "--val-per-task", "4", "--test-per-task", "20"];
      run(program, [main, ...merge, "--backend", backend, "--out", out], folder);
    }
    run(program, [join(root, "node_modules", "vitest", "vitest.mjs"), "run", ...tests]);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(Number(failed));
