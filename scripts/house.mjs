// Measures what makes sources hard to read, so that a change can be held against the state before it:
// `npm run house` (this checkout), `node scripts/house.mjs FOLDER` (another one), `--list KIND` names the places.
// The parser is the one that vitest brings along; checkouts that are not built can be read too.
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseAst } from "rolldown/parseAst";

const args = process.argv.slice(2);
const listed = args.includes("--list") ? args.splice(args.indexOf("--list"), 2)[1] : undefined;
const root = resolve(args[0] ?? join(dirname(fileURLToPath(import.meta.url)), ".."));
const source = join(root, "src");

const files = readdirSync(source, { recursive: true })
  .filter((name) => name.endsWith(".ts") && !name.endsWith(".d.ts"))
  .map((name) => join(source, name))
  .filter((path) => statSync(path).isFile())
  .toSorted();

/** What is counted: kind to the places found, each `file:line text`. */
const found = {
  "functions over 60 lines": [],
  "functions of more than five parameters": [],
  "functions of more than four parameters": [],
  "non-null assertions (!)": [],
  "casts (as)": [],
  "?? 0 on an index": [],
  "conditional expressions": [],
  "nested conditional expressions": [],
  "files over 300 lines": [],
  "lines over 120 characters": [],
};
const functionTypes = new Set(["FunctionDeclaration", "FunctionExpression", "ArrowFunctionExpression"]);
let functions = 0;
/** Top-level name to the files that define it. */
const names = new Map();
/** File to the files it imports, for types too. */
const imports = new Map();

function readFile(path) {
  const text = readFileSync(path, "utf8");
  const file = relative(root, path);
  const lines = text.split("\n");
  const starts = [0];
  for (const line of lines) starts.push(starts.at(-1) + line.length + 1);
  const lineOf = (offset) => starts.findLastIndex((start) => start <= offset) + 1;
  const note = (kind, node, words = text.slice(node.start, node.start + 60).split("\n")[0]) =>
    found[kind].push(`${file}:${lineOf(node.start)} ${words}`);

  function count(node) {
    if (functionTypes.has(node.type) || node.type === "ArrowFunctionExpression") {
      functions++;
      const length = lineOf(node.end) - lineOf(node.start) + 1;
      if (length > 60) note("functions over 60 lines", node, `${node.id?.name ?? ""} ${length}`);
      if (node.params.length > 4) note("functions of more than four parameters", node);
      if (node.params.length > 5) note("functions of more than five parameters", node);
    }
    if (node.type === "TSNonNullExpression") note("non-null assertions (!)", node);
    if (node.type === "TSAsExpression" && text.slice(node.typeAnnotation.start, node.end) !== "const")
      note("casts (as)", node);
    if (node.type === "LogicalExpression" && node.operator === "??") {
      if (node.right.value === 0 && node.left.type === "MemberExpression" && node.left.computed)
        note("?? 0 on an index", node);
    }
    if (node.type === "ConditionalExpression") {
      note("conditional expressions", node);
      if ([node.consequent, node.alternate].some((branch) => branch.type === "ConditionalExpression"))
        note("nested conditional expressions", node);
    }
    for (const value of Object.values(node)) {
      for (const child of Array.isArray(value) ? value : [value]) {
        if (typeof child?.type === "string") count(child);
      }
    }
  }

  const define = (name) => names.set(name, new Set([...(names.get(name) ?? []), file]));
  const program = parseAst(text, { lang: "ts" });
  for (const statement of program.body) {
    const declared =
      statement.type === "ExportNamedDeclaration" ? (statement.declaration ?? statement) : statement;
    for (const { id } of declared.declarations ?? []) if (id.name !== undefined) define(id.name);
    if (declared.id?.name !== undefined) define(declared.id.name);
    const module = statement.source?.value;
    if (module?.startsWith(".")) {
      const target = join(dirname(path), module).replace(/\.js$/, ".ts");
      imports.set(path, [...(imports.get(path) ?? []), target]);
    }
  }
  if (lines.length > 301) found["files over 300 lines"].push(`${file} ${lines.length - 1}`);
  lines.forEach((line, index) => {
    if (line.length > 120) found["lines over 120 characters"].push(`${file}:${index + 1}`);
  });
  count(program);
}

/** Files on a circle of imports (Tarjan's strongly connected components). */
function circles() {
  const index = new Map();
  const low = new Map();
  const stack = [];
  const result = [];
  function visit(file) {
    index.set(file, index.size);
    low.set(file, index.get(file));
    stack.push(file);
    for (const next of imports.get(file) ?? []) {
      if (!index.has(next)) {
        visit(next);
        low.set(file, Math.min(low.get(file), low.get(next)));
      } else if (stack.includes(next)) low.set(file, Math.min(low.get(file), index.get(next)));
    }
    if (low.get(file) !== index.get(file)) return;
    const component = stack.splice(stack.indexOf(file));
    if (component.length > 1) result.push(component.map((path) => relative(root, path)).join(" "));
  }
  for (const file of files) if (!index.has(file)) visit(file);
  return result;
}

files.forEach(readFile);
found["top-level names defined in more than one file"] = [...names]
  .filter(([, places]) => places.size > 1)
  .map(([name, places]) => `${name}: ${[...places].join(" ")}`);
found["circles of imports (types too)"] = circles();

if (listed === undefined) {
  console.log(`| ${files.length} files, ${functions} functions, ${names.size} top-level names | count |`);
  console.log("|---|---:|");
  for (const [kind, places] of Object.entries(found)) console.log(`| ${kind} | ${places.length} |`);
} else {
  const kind = Object.keys(found).find((name) => name.includes(listed));
  if (kind === undefined) {
    console.error(`--list: no kind has "${listed}" in its name; the kinds: ${Object.keys(found).join("; ")}`);
    process.exit(2);
  }
  console.log(found[kind].join("\n"));
}
