/**
 * Flat merge, tree of pairs and tree of threes, side by side on a real family: accuracy per task over
 * seeds, device and process peak, time, bytes read.
 *
 *   node dist/experiments/tree/run.js --family minilm --data DATA [--tasks rte,cb,copa,trec6,sst2]
 *   [--seeds 0,1,2] [--backend node]
 *
 * Every merge is a process of `train-merge` itself; finished ones are not run again (merged/tree/… holds them).
 */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { resultTable, tableCaption, toMarkdown, type ResultRow } from "../../src/index.js";

const { values: o } = parseArgs({
  options: {
    family: { type: "string", default: "minilm" },
    data: { type: "string" },
    tasks: { type: "string", default: "rte,cb,copa,trec6,sst2" },
    seeds: { type: "string", default: "0,1,2" },
    backend: { type: "string", default: "node" },
    out: { type: "string", default: "experiments/tree" },
    runs: { type: "string", default: "merged/tree" },
    "tables-only": { type: "boolean", default: false },
  },
});
const kinds: [name: string, args: string[]][] = [
  ["supermerge, flat", ["train"]],
  ["hierarchical, pairs", ["tree", "--pairwise"]],
  ["hierarchical, threes", ["tree", "--fan-in", "3"]],
];

interface Run {
  seconds: { total: number };
  bytesRead: { total: number };
  devicePeakBytes: number;
  peakMemoryBytes: number;
}
interface NodeRun {
  seconds: number;
  bytesRead: number;
  devicePeakBytes: number;
  peakMemoryBytes: number;
}
interface Cost {
  seconds: number;
  read: number;
  device: number;
  process: number;
}

const json = async <T>(path: string): Promise<T> => JSON.parse(await readFile(path, "utf8")) as T;

/** What a merge took, its nodes' processes included. */
async function costOf(out: string): Promise<Cost> {
  const run = await json<Run>(join(out, "run.json"));
  const nodes: NodeRun[] = [];
  if (existsSync(join(out, "tree.json"))) {
    for (const { id } of (await json<{ nodes: { id: string }[] }>(join(out, "tree.json"))).nodes)
      nodes.push(await json<NodeRun>(join(out, "nodes", id, "run.json")));
  }
  return {
    seconds: run.seconds.total,
    read: run.bytesRead.total + nodes.reduce((sum, { bytesRead }) => sum + bytesRead, 0),
    device: Math.max(run.devicePeakBytes, ...nodes.map(({ devicePeakBytes }) => devicePeakBytes)),
    process: Math.max(run.peakMemoryBytes, ...nodes.map(({ peakMemoryBytes }) => peakMemoryBytes)),
  };
}

const rows: ResultRow[] = [];
const costs = new Map<string, Cost[]>();
for (const seed of o.seeds.split(",").map(Number)) {
  for (const [name, args] of kinds) {
    const out = join(o.runs, `${name.replaceAll(/[ ,]+/g, "-")}-seed${seed}`);
    if (!existsSync(join(out, "results.json"))) {
      if (o["tables-only"]) continue;
      console.log(`running ${name}, seed ${seed}`);
      execFileSync(
        process.execPath,
        [
          "dist/src/cli/main.js",
          ...args,
          "--tasks",
          o.tasks,
          "--family",
          o.family,
          "--data",
          o.data!,
          "--seed",
          String(seed),
          "--backend",
          o.backend,
          "--out",
          out,
        ],
        { stdio: ["ignore", "ignore", "ignore"] },
      );
    }
    const found = (await json<{ rows: ResultRow[] }>(join(out, "results.json"))).rows;
    if (name === kinds[0]![0]) rows.push(...found.filter(({ method }) => method !== "supermerge"));
    rows.push(
      ...found
        .filter(({ method }) => method === "supermerge" || method === "hierarchical")
        .map((row) => ({ ...row, method: name })),
    );
    costs.set(name, [...(costs.get(name) ?? []), await costOf(out)]);
  }
}
const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const cost = toMarkdown({
  head: ["merge", "device peak, MB", "process peak, GB", "seconds", "read, GB"],
  body: [...costs].map(([name, all]) => [
    name,
    (mean(all.map(({ device }) => device)) / 1e6).toFixed(0),
    (mean(all.map(({ process: p }) => p)) / 1e9).toFixed(2),
    mean(all.map(({ seconds }) => seconds)).toFixed(0),
    (mean(all.map(({ read }) => read)) / 1e9).toFixed(2),
  ]),
});
await writeFile(
  join(o.out, "results.md"),
  `${tableCaption(rows, false, 32)}\n\n${toMarkdown(resultTable(rows))}\n\nCost of a ` +
    "merge, mean over seeds; of a tree, the peaks of its largest process, the time of the " +
    "whole command and the bytes that all its processes read (hashing not " +
    `counted):\n\n${cost}\n`,
);
console.log(await readFile(join(o.out, "results.md"), "utf8"));
