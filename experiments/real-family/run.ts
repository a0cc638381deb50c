/**
 * The tables of the real family (all-MiniLM-L6-v2 and its experts): three sets of tasks at three seeds,
 * and what steps, learning rate, number of validation examples and start do to one of them.
 *
 *   node dist/experiments/real-family/run.js --family minilm --data DATA [--out
 *   experiments/real-family] [--only cb+trec6+sst2]
 *
 * Runs that are finished are not run again (merged/real-family/… holds them); the tables are written
 * from what is there.
 */
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  loadSettings,
  mergeByTraining,
  resultTable,
  tableCaption,
  toMarkdown,
  type ResultRow,
} from "../../src/index.js";

const { values: options } = parseArgs({
  options: {
    family: { type: "string", default: "minilm" },
    data: { type: "string" },
    out: { type: "string", default: "experiments/real-family" },
    runs: { type: "string", default: "merged/real-family" },
    only: { type: "string" },
    "tables-only": { type: "boolean", default: false },
  },
});
const sets = ["rte,cb,copa", "cb,trec6,sst2", "rte,cb,copa,trec6,sst2"];
const seeds = [0, 1, 2];
/** Two seeds are enough to see which settings matter, and take half an hour less. */
const studySeeds = [0, 1];
/** One setting is changed at a time, on the set whose experts are strong. */
const studied = "cb,trec6,sst2";
const study: [string, Record<string, number | string>][] = [
  ["default", {}],
  ["steps 30", { steps: 30 }],
  ["steps 200", { steps: 200 }],
  ["lr 0.01", { lr: 0.01 }],
  ["lr 0.1", { lr: 0.1 }],
  ["val-per-task 8", { valPerTask: 8 }],
  ["val-per-task 128", { valPerTask: 128 }],
  ["init 0.3", { init: 0.3 }],
  ["holdout 0", { holdout: 0 }],
];

/** Runs one merge, or takes the rows it left before. */
async function rowsOf(name: string, settings: Record<string, unknown>): Promise<ResultRow[]> {
  const out = join(options.runs, name);
  const results = join(out, "results.json");
  if (!existsSync(results)) {
    if (options["tables-only"]) return [];
    const chosen = await loadSettings({ family: options.family, data: options.data, out, ...settings });
    console.log(`running ${name}`);
    await mergeByTraining(chosen, { note: console.log, progress() {}, step() {}, stopping: () => false });
  }
  return (JSON.parse(await readFile(results, "utf8")) as { rows: ResultRow[] }).rows;
}

const slug = (text: string): string => text.replaceAll(",", "+").replaceAll(" ", "-");
const wanted = (set: string): boolean => options.only === undefined || options.only === slug(set);
const lines: string[] = [];
for (const tasks of sets.filter(wanted)) {
  const rows: ResultRow[] = [];
  for (const seed of seeds) rows.push(...(await rowsOf(`${slug(tasks)}-seed${seed}`, { tasks, seed })));
  if (rows.length)
    lines.push(`### ${tasks}`, tableCaption(rows, false, 32), "", toMarkdown(resultTable(rows)), "");
}
if (wanted(studied)) {
  const rows: ResultRow[] = [];
  for (const seed of studySeeds) {
    for (const [name, settings] of study) {
      const run = Object.keys(settings).length
        ? `study/${slug(name)}-seed${seed}`
        : `${slug(studied)}-seed${seed}`;
      const found = await rowsOf(run, { tasks: studied, seed, ...settings });
      rows.push(
        ...found.filter(({ method }) => method === "supermerge").map((row) => ({ ...row, method: name })),
      );
    }
  }
  // Only seeds at which every setting has been run: means over different seeds cannot be compared.
  const whole = studySeeds.filter((seed) =>
    study.every(([name]) => rows.some((row) => row.method === name && row.seed === seed)),
  );
  const shown = rows.filter(({ seed }) => whole.includes(seed));
  if (shown.length)
    lines.push(
      `### SuperMerge on ${studied}, one setting changed at a time`,
      tableCaption(shown, false, 32)
        .replace("among merged models", "among these")
        .replace("a task at most", "a task where not said otherwise"),
      "",
      toMarkdown(resultTable(shown)),
      "",
    );
}
await writeFile(join(options.out, "results.md"), `${lines.join("\n")}\n`);
console.log(lines.join("\n"));
process.exit(0);
