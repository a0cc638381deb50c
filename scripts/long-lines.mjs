// What the formatter leaves long: strings and comments.
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";

const most = 120;

function sources(path) {
  if (statSync(path).isDirectory()) return readdirSync(path).flatMap((name) => sources(join(path, name)));
  return /\.(ts|mjs)$/.test(path) ? [path] : [];
}

/** Ends this process with 1 where a line of a source has over 120 characters. */
export function refuseLongLines(root, paths) {
  const long = paths
    .flatMap((path) => sources(join(root, path)))
    .flatMap((file) =>
      readFileSync(file, "utf8")
        .split("\n")
        .flatMap((line, i) =>
          [...line].length > most ? [`${file}:${i + 1}: ${[...line].length} characters`] : [],
        ),
    );
  if (long.length === 0) return;
  process.stderr.write(`${long.join("\n")}\nbreak these lines: a line has at most ${most} characters\n`);
  process.exit(1);
}
