import { existsSync, readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { loadSettings } from "../src/config/load.js";
import { packageFolder } from "../src/package.js";
import { loadTasks } from "../src/tasks/registry.js";
import { cliIn } from "./cli/cli.js";

/** What people read first: short enough to be read, and nothing in it that is not there. */
const read = (path: string): string => readFileSync(join(packageFolder, path), "utf8");
const documents = [
  "README.md",
  "CONTRIBUTING.md",
  "experiments/README.md",
  "scripts/bench/README.md",
  ...(await readdir(join(packageFolder, "docs")))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

test("the README is read on one page", () => {
  const text = read("README.md");
  expect(text.split("\n").length).toBeLessThanOrEqual(160);
  expect(Buffer.byteLength(text)).toBeLessThanOrEqual(10_000);
});

test.each(documents)("%s: what it links to is there", (path) => {
  const links = [...read(path).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target = ""]) => target.split("#")[0]!);
  const inside = links.filter((target) => target !== "" && !/^https?:/.test(target));
  const missing = inside.filter(
    (target) => !existsSync(join(packageFolder, dirname(path), decodeURI(target))),
  );
  expect(missing).toEqual([]);
});

test("every command that the documents name is one", async () => {
  const { stdout } = await cliIn(packageFolder)("--help");
  const commands = new Set([...stdout.matchAll(/^ {2}([a-z]+) /gm)].map(([, name = ""]) => name));
  // In prose "train-merge merges" is a verb: a command stands in code.
  const code = documents.flatMap((path) =>
    [...read(path).matchAll(/(?:^|`|\$ )train-merge ([a-z]+)[ `]/gm)].map(([, name = ""]) => name),
  );
  expect(code.length).toBeGreaterThan(20);
  expect([...new Set(code)].filter((name) => !commands.has(name))).toEqual([]);
});

test("every config that ships is one, and names tasks that are known and have templates or heads", async () => {
  const folders = await readdir(join(packageFolder, "experiments"));
  const configs = folders
    .map((name) => join(packageFolder, "experiments", name, "config.yaml"))
    .filter((path) => existsSync(path));
  expect(configs.length).toBeGreaterThan(12);
  const registry = await loadTasks();
  for (const path of configs) {
    const { tasks } = await loadSettings({}, path);
    expect(
      tasks.filter((task) => !registry.has(task)),
      path,
    ).toEqual([]);
  }
});
