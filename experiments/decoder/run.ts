/**
 * A real language model and LoRA experts of it (scripts/families/smollm.py), merged: ranked answers to
 * one prompt a task, on the first examples of each test set, since every one of them is read by a model
 * of 135 million parameters.
 *
 *   node dist/experiments/decoder/run.js --data DATA [--tasks sst2,trec6,cb] [--examples 200]
 *   [--methods …] [-- OPTIONS of compare]
 */
import { execFileSync } from "node:child_process";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { parse, stringify } from "yaml";
import { comparisonTable, tableCaption, toMarkdown, type ResultRow, type Timed } from "../../src/index.js";

const { values: o, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    family: { type: "string", default: "checkpoints/smollm" },
    data: { type: "string" },
    tasks: { type: "string", default: "sst2,trec6,cb" },
    examples: { type: "string", default: "200" },
    methods: {
      type: "string",
      default: "average,task-arithmetic,ties,supermerge,supermerge-entropy,supermerge-distillation",
    },
    backend: { type: "string", default: "node" },
    out: { type: "string", default: "experiments/decoder" },
    runs: { type: "string", default: "merged/decoder" },
  },
});

// The first examples of each test set, and the first prompt of each task.
const [data, prompts] = [join(o.runs, "data"), join(o.runs, "prompts")];
const templates = parse(await readFile("data/prompts.yaml", "utf8")) as Record<string, object[]>;
for (const task of o.tasks.split(",")) {
  await mkdir(join(data, task), { recursive: true });
  await mkdir(join(prompts, task), { recursive: true });
  for (const split of ["train", "validation"])
    await cp(join(o.data!, task, `${split}.jsonl`), join(data, task, `${split}.jsonl`));
  const lines = (await readFile(join(o.data!, task, "test.jsonl"), "utf8"))
    .split("\n")
    .filter(Boolean)
    .slice(0, Number(o.examples));
  await writeFile(join(data, task, "test.jsonl"), `${lines.join("\n")}\n`);
  await writeFile(
    join(prompts, task, "templates.yaml"),
    stringify({ dataset: task, templates: { first: templates[task]![0] } }),
  );
}
await cp(join(o.data!, "tasks.json"), join(data, "tasks.json"));
const out = join(o.runs, "compared");
execFileSync(
  process.execPath,
  [
    "dist/src/cli/main.js",
    "compare",
    "--tasks",
    o.tasks,
    "--base",
    join(o.family, "base"),
    "--experts",
    join(o.family, "experts"),
    "--data",
    data,
    "--prompts",
    prompts,
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
const { rows, times, settings } = JSON.parse(await readFile(join(out, "results.json"), "utf8")) as {
  rows: ResultRow[];
  times: Timed[];
  settings: { valPerTask: number };
};
const more = positionals.length ? `; \`${positionals.join(" ")}\`` : "";
const limited = `the first ${o.examples} test examples of a task at most, one prompt a task${more}`;
await writeFile(
  join(o.out, "results.md"),
  `${tableCaption(rows, false, settings.valPerTask)}; ${limited}

${toMarkdown(comparisonTable(rows, times))}
`,
);
