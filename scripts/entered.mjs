// Counts the modules in which a function runs during `train-merge --tasks rte,cb --steps 2` (or the arguments given):
// what somebody who follows that command has to open. Command files that only register themselves are left out.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const scratch = mkdtempSync(join(tmpdir(), "entered-"));
const given = process.argv.slice(2);
const args = given.length ? given : ["--tasks", "rte,cb", "--steps", "2"];
try {
  const { status } = spawnSync(
    process.execPath,
    [join(root, "dist/src/cli/main.js"), ...args, "--out", join(scratch, "out")],
    { cwd: root, stdio: "ignore", env: { ...process.env, NODE_V8_COVERAGE: join(scratch, "coverage") } },
  );
  if (status !== 0) throw new Error(`the command ended with ${status}`);
  const entered = new Map();
  for (const file of readdirSync(join(scratch, "coverage"))) {
    const { result } = JSON.parse(readFileSync(join(scratch, "coverage", file), "utf8"));
    for (const { url, functions } of result) {
      const [, path] = /\/dist\/src\/(.+)\.js$/.exec(url) ?? [];
      if (path === undefined) continue;
      // The first is the module itself; functions without a name are often initialisers of constants.
      const ran = functions.filter(
        ({ functionName, ranges }, i) => i > 0 && functionName && ranges[0].count > 0,
      );
      const names = new Set([...(entered.get(path) ?? []), ...ran.map(({ functionName }) => functionName)]);
      if (names.size) entered.set(path, names);
    }
  }
  const registers = ([path, names]) =>
    path.startsWith("cli/") && [...names].every((name) => /^add[A-Z]/.test(name));
  const shown = [...entered].filter((one) => !registers(one)).toSorted(([a], [b]) => (a < b ? -1 : 1));
  const rooms = new Map();
  for (const [path] of shown) {
    const room = path.includes("/") ? path.split("/")[0] : "(top)";
    rooms.set(room, [...(rooms.get(room) ?? []), path.split("/").at(-1)]);
  }
  for (const [room, files] of rooms) console.log(`${room} ${files.length}: ${files.join(", ")}`);
  console.log(`${shown.length} modules`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
