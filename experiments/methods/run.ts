/**
 * Every method on the same experts of a real family, in one table over seeds, each with the time it took.
 *
 *   node dist/experiments/methods/run.js --family minilm --data DATA [--tasks cb,trec6,sst2] [--seeds
 *   0,1,2] [--methods all] [-- OPTIONS of compare]
 *
 * Every seed is a process of `train-merge compare`; methods that are done are not run again
 * (merged/methods/… holds them).
 */
import { execFileSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { comparisonTable, tableCaption, toMarkdown, type ResultRow, type Timed } from "../../src/index.js";

const { values: o, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    family: { type: "string", default: "minilm" },
    data: { type: "string" },
    tasks: { type: "string", default: "cb,trec6,sst2" },
    seeds: { type: "string", default: "0,1,2" },
    methods: { type: "string", default: "all" },
    backend: { type: "string", default: "node" },
    out: { type: "string", default: "experiments/methods" },
    runs: { type: "string", default: "merged/methods" },
    name: { type: "string", default: "results" },
  },
});

interface Results {
  rows: ResultRow[];
  times: Timed[];
  search: Record<string, { values: Record<string, number>; accuracy: number; loss: number }[]>;
}

const best = (points: Results["search"][string]) =>
  points.reduce((a, b) =>
    b.accuracy > a.accuracy || (b.accuracy === a.accuracy && b.loss < a.loss) ? b : a,
  );

const rows: ResultRow[] = [];
const times: Timed[] = [];
let curves: Results["search"] = {};
for (const seed of o.seeds.split(",")) {
  const out = join(o.runs, `seed${seed}`);
  execFileSync(
    process.execPath,
    [
      "dist/src/cli/main.js",
      "compare",
      "--tasks",
      o.tasks,
      "--family",
      o.family,
      "--data",
      o.data!,
      "--seed",
      seed,
      "--methods",
      o.methods,
      "--backend",
      o.backend,
      "--out",
      out,
      ...positionals,
    ],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  const found = JSON.parse(await readFile(join(out, "results.json"), "utf8")) as Results;
  rows.push(...found.rows);
  times.push(...found.times);
  if (Object.keys(curves).length === 0) curves = found.search;
}
const settings = positionals.length ? `; \`${positionals.join(" ")}\`` : "";
await writeFile(
  join(o.out, `${o.name}.md`),
  `${tableCaption(rows, false, 32)}${settings}. Rows without † have seen validation examples alone.

${toMarkdown(comparisonTable(rows, times))}

What the search on the validation examples chose (seed ${o.seeds.split(",")[0]}; the whole grids are in
${o.runs}/seed*/results.json):

${toMarkdown({
  head: ["method", "chosen", "points tried"],
  body: Object.entries(curves).map(([name, points]) => [
    name,
    Object.entries(best(points).values)
      .map(([key, value]) => `${key} ${value}`)
      .join(", "),
    String(points.length),
  ]),
})}
`,
);
console.log(await readFile(join(o.out, `${o.name}.md`), "utf8"));
