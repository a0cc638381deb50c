// Mutation testing of what decides: `npm run mutate`, or of one module, `npm run mutate -- --mutate src/tree/plan.ts`.
// See README.md beside this file.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAst } from "rolldown/parseAst";

const modules = [
  "src/train/loop.ts",
  "src/train/adamw.ts",
  "src/tasks/batches.ts",
  "src/tasks/split.ts",
  "src/tasks/prompts.ts",
  "src/evaluate/evaluate.ts",
  "src/evaluate/baselines.ts",
  "src/plan/memory.ts",
  "src/tree/plan.ts",
  "src/inputs/placement.ts",
  "src/compare/compare.ts",
  "src/compare/candidates.ts",
  "src/compare/held-out.ts",
  "src/compare/search.ts",
];

/** Where src/reproduce judges: the claims' `holds`, and the functions that they call. */
const judges = new Set([
  "holds",
  "average",
  "at",
  "bestOf",
  "compared",
  "heldIn",
  "heldOut",
  "missedOf",
  "of",
  "sizes",
]);

/** The functions of those names in a file, as Stryker wants a part of one: `file:line:column-line:column`. */
function partsOf(file) {
  const text = readFileSync(file, "utf8");
  const place = (offset) => {
    const lines = text.slice(0, offset).split("\n");
    return `${lines.length}:${lines.at(-1).length}`;
  };
  const found = [];
  const look = (node, name) => {
    const own = node.id?.name ?? node.key?.name ?? name;
    // What is asynchronous runs an experiment, and judges nothing.
    if (node.async) return;
    if (/Function/.test(node.type) && judges.has(own)) {
      found.push(`${file}:${place(node.start)}-${place(node.end)}`);
      return;
    }
    const hands = ["VariableDeclarator", "Property"].includes(node.type) ? own : undefined;
    for (const value of Object.values(node))
      for (const child of Array.isArray(value) ? value : [value])
        if (typeof child?.type === "string") look(child, hands);
  };
  look(parseAst(text, { lang: "ts" }));
  return found;
}

const room = "src/reproduce";
const claims = readdirSync(room).flatMap((name) => partsOf(join(room, name)));

// Most tests write small files, each to the disk for good: in memory that is nothing.
if (existsSync("/dev/shm")) process.env.TMPDIR = "/dev/shm";

export default {
  testRunner: "vitest",
  plugins: ["@stryker-mutator/vitest-runner"],
  vitest: { configFile: "scripts/mutate/vitest.config.ts", related: false },
  coverageAnalysis: "perTest",
  mutate: [...modules, ...claims],
  // TypeScript 7 has no JavaScript API with which Stryker could rewrite tsconfig.json: it is left as it is.
  tsconfigFile: "none.json",
  concurrency: 2,
  // A busy machine is no reason to call a mutant killed.
  timeoutMS: 20_000,
  tempDirName: "merged/mutate/sandboxes",
  reporters: ["clear-text", "html", "json", "progress-append-only"],
  clearTextReporter: { logTests: false, reportTests: false, allowColor: false },
  htmlReporter: { fileName: "merged/mutate/report.html" },
  jsonReporter: { fileName: "merged/mutate/report.json" },
};
