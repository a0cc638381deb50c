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
  "src/reproduce/claims.ts",
];

/** Every node of a syntax tree, a parent before its children. */
function* nodesOf(node) {
  yield node;
  for (const value of Object.values(node))
    for (const child of Array.isArray(value) ? value : [value])
      if (typeof child?.type === "string") yield* nodesOf(child);
}

/** Where a file of src/reproduce judges: what it hands to `claim`, and its own functions that are called there. */
function judgesOf(file) {
  const text = readFileSync(file, "utf8");
  const program = parseAst(text, { lang: "ts" });
  const functions = new Map();
  for (const node of nodesOf(program)) {
    if (node.type === "FunctionDeclaration") functions.set(node.id.name, node);
    if (node.type === "VariableDeclarator" && node.init?.type === "ArrowFunctionExpression")
      functions.set(node.id.name, node.init);
  }
  // Numbers are held against what is expected of them, too.
  const judges = new Set([functions.get("missedOf")].filter(Boolean));
  for (const node of nodesOf(program))
    if (node.type === "CallExpression" && node.callee.name === "claim") judges.add(node.arguments[1]);
  // A set is gone over to its end, and so is what is added on the way.
  for (const judge of judges)
    for (const { type, name } of nodesOf(judge))
      if (type === "Identifier" && functions.has(name)) judges.add(functions.get(name));
  const place = (offset) => {
    const lines = text.slice(0, offset).split("\n");
    return `${lines.length}:${lines.at(-1).length}`;
  };
  return [...judges].map(({ start, end }) => `${file}:${place(start)}-${place(end)}`);
}

const room = "src/reproduce";
const files = readdirSync(room).filter((name) => name !== "claims.ts");
const judges = files.flatMap((name) => judgesOf(join(room, name)));

// Most tests write small files, each to the disk for good: in memory that is nothing.
if (existsSync("/dev/shm")) process.env.TMPDIR = "/dev/shm";

const kept = ["{src,test,scripts,experiments}/**", "data/*.{json,yaml}", "*.{json,ts}"];

export default {
  testRunner: "vitest",
  plugins: ["@stryker-mutator/vitest-runner"],
  vitest: { configFile: "scripts/mutate/vitest.config.ts", related: false },
  coverageAnalysis: "perTest",
  mutate: [...modules, ...judges],
  // What Stryker copies to work in: models, data and results of one's own stay where they are.
  ignorePatterns: ["**", ...kept.map((name) => `!${name}`)],
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
