import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { expect, test } from "vitest";
import { copied, packages } from "../../scripts/gpu/bundle-files.js";
import { packageFolder } from "../../src/package.js";

const suite = join(packageFolder, "test", "conformance");
const files = [
  ...readdirSync(suite).map((name) => join(suite, name)),
  join(packageFolder, "test", "helpers.ts"),
];

/** What a file imports: relative to the project, or the name of a package. */
const importsOf = (file: string): string[] =>
  [...readFileSync(file, "utf8").matchAll(/from "([^"]+)"/g)].map(([, source]) =>
    source!.startsWith(".")
      ? relative(packageFolder, join(file, "..", source!)).replace(/\.js$/, ".ts")
      : source!,
  );

test("the bundle for a card holds what the conformance suite imports", () => {
  const missing = files
    .flatMap(importsOf)
    .filter((source) => !source.startsWith("node:") && !packages.includes(source))
    .filter((source) => !copied.some((path) => source === path || source.startsWith(`${path}/`)));
  expect(missing).toEqual([]);
});
