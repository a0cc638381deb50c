/**
 * What packing the task vectors costs: their error, the change of the loss, and the accuracy of the
 * merge trained on them.
 *
 *   node dist/experiments/packing/run.js --family minilm --data DATA [--tasks cb,trec6,sst2] [--seeds
 *   0,1] [--backend node]
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { packings, resultTable, tableCaption, toMarkdown, type ResultRow } from "../../src/index.js";

const { values: o } = parseArgs({
  options: {
    family: { type: "string", default: "minilm" },
    data: { type: "string" },
    tasks: { type: "string", default: "cb,trec6,sst2" },
    seeds: { type: "string", default: "0,1" },
    backend: { type: "string", default: "node" },
    out: { type: "string", default: "experiments/packing" },
    runs: { type: "string", default: "merged/packing" },
    steps: { type: "string", default: "100" },
  },
});
interface Results {
  rows: ResultRow[];
  packing?: { error: number; loss: { packed: number; exact: number } };
}

const rows: ResultRow[] = [];
const costs = new Map<string, NonNullable<Results["packing"]>[]>();
for (const seed of o.seeds.split(",")) {
  for (const packing of packings) {
    const out = join(o.runs, `${packing}-seed${seed}`);
    if (!existsSync(join(out, "results.json"))) {
      console.log(`running ${packing}, seed ${seed}`);
      execFileSync(
        process.execPath,
        [
          "dist/src/cli/main.js",
          "--tasks",
          o.tasks,
          "--family",
          o.family,
          "--data",
          o.data!,
          "--seed",
          seed,
          "--pack",
          packing,
          "--steps",
          o.steps,
          "--backend",
          o.backend,
          "--out",
          out,
        ],
        { stdio: "ignore" },
      );
    }
    const results = JSON.parse(await readFile(join(out, "results.json"), "utf8")) as Results;
    rows.push(
      ...results.rows
        .filter(({ method }) => method === "supermerge")
        .map((row) => ({ ...row, method: packing })),
    );
    if (results.packing) costs.set(packing, [...(costs.get(packing) ?? []), results.packing]);
  }
}
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const table = toMarkdown({
  head: ["packing", "error of the task vectors", "validation loss", "with exact vectors"],
  body: [...costs].map(([packing, all]) => [
    packing,
    `${(100 * mean(all.map(({ error }) => error))).toPrecision(2)} %`,
    mean(all.map(({ loss }) => loss.packed)).toFixed(4),
    mean(all.map(({ loss }) => loss.exact)).toFixed(4),
  ]),
});
await writeFile(
  join(o.out, "results.md"),
  `SuperMerge trained on packed task vectors (family ${o.family}; sparse keeps the largest ` +
    "fifth of each tensor). " +
    `${tableCaption(rows, false, 32).replace("merged models", "these")}\n\n${toMarkdown(resultTable(rows))}\n\nUnder ` +
    `the trained coefficients, mean over seeds:\n\n${table}\n`,
);
console.log(await readFile(join(o.out, "results.md"), "utf8"));
