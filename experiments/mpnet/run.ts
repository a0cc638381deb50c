/**
 * One seed of the MPNet tables: its experts are fine-tuned (or are there), merged with every method, and what was
 * measured is kept in rows/; the tables are written from all that is kept there.
 *
 *   node dist/experiments/mpnet/run.js --data DATA [--seed 0] [--tasks rte,cb,copa] [--parts experts,compare,…]
 *
 * A seed draws the validation examples and the batches; the experts are those of seed 0 (`--experts-seed` makes and
 * merges others). Nothing that is finished is run again (checkpoints/mpnet and merged/mpnet hold it): Ctrl-C, and the
 * same command goes on.
 */
import { execFileSync } from "node:child_process";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resultTable, tableCaption, toMarkdown, type ResultRow } from "../../src/index.js";

const { values: o } = parseArgs({
  options: {
    data: { type: "string" },
    seed: { type: "string", default: "0" },
    "experts-seed": { type: "string", default: "0" },
    tasks: { type: "string", default: "rte,cb,copa" },
    family: { type: "string", default: "checkpoints/mpnet" },
    parts: { type: "string" },
    methods: {
      type: "string",
      default:
        "average,task-arithmetic,ties,dare,regmean,supermerge,supermerge-distillation,adamerging,adamerging++",
    },
    backend: { type: "string", default: "node" },
    out: { type: "string", default: "experiments/mpnet" },
    runs: { type: "string", default: "merged/mpnet" },
  },
});
const { data, seed, tasks } = o;
const examples = "16";
const chosen = o.parts?.split(",");
const name = tasks.replaceAll(",", "-");
const rowFolder = join(o.out, "rows", name);

interface MergePart {
  readonly part: string;
  readonly args: readonly string[];
  /** The rows that it adds, by the name they have in the table. */
  readonly method?: string;
}

const merges: readonly MergePart[] = [
  // AdaMerging's own number is 500.
  { part: "compare", args: ["compare", "--methods", o.methods, "--steps", "100"] },
  { part: "pairwise", args: ["tree", "--pairwise"], method: "supermerge, pairwise" },
  { part: "threes", args: ["tree", "--fan-in", "3"], method: "supermerge, tree of threes" },
];

const expertsSeed = o["experts-seed"];
const experts = expertsSeed === "0" ? "experts" : `experts-${expertsSeed}`;

function fineTune(): void {
  const env = { ...process.env, SEED: expertsSeed, TASKS: tasks.replaceAll(",", " "), LORA: "" };
  execFileSync("bash", ["scripts/families/mpnet.sh", data!, o.family], { stdio: "inherit", env });
}

/** Rows that a merge measured; of a tree, its own. */
async function merged({ part, args, method }: MergePart): Promise<ResultRow[]> {
  const out = join(o.runs, `${name}-seed${seed}`, part);
  const inputs = ["--base", join(o.family, "base"), "--experts", join(o.family, experts), "--tasks", tasks];
  const settings = ["--data", data!, "--val-per-task", examples, "--seed", seed, "--backend", o.backend];
  const command = ["dist/src/cli/main.js", ...args, ...inputs, ...settings, "--out", out];
  execFileSync(process.execPath, command, { stdio: "inherit" });
  const { rows } = JSON.parse(await readFile(join(out, "results.json"), "utf8")) as { rows: ResultRow[] };
  if (method === undefined) return rows;
  return rows.filter((row) => row.method === "hierarchical").map((row) => ({ ...row, method }));
}

const readRows = async (file: string): Promise<ResultRow[]> =>
  JSON.parse(await readFile(file, "utf8")) as ResultRow[];

if (chosen === undefined || chosen.includes("experts")) fineTune();
await mkdir(rowFolder, { recursive: true });
for (const merge of merges) {
  // Three models are one node of three: the flat merge.
  if (merge.part === "threes" && tasks.split(",").length < 4) continue;
  if (chosen !== undefined && !chosen.includes(merge.part)) continue;
  const rows = await merged(merge);
  const file = join(rowFolder, `${merge.part}-seed${seed}.json`);
  // Methods that an earlier call ran on the same experts stay.
  const known = await readRows(file).catch(() => []);
  const others = known.filter(({ method }) => !rows.some((row) => row.method === method));
  await writeFile(file, `${JSON.stringify([...others, ...rows])}\n`);
}

const kept: ResultRow[] = [];
for (const file of (await readdir(rowFolder)).sort()) kept.push(...(await readRows(join(rowFolder, file))));
const table = `${tableCaption(kept, false, Number(examples))}\n\n${toMarkdown(resultTable(kept))}\n`;
await writeFile(join(o.out, `${name}.md`), table);
console.log(table);
