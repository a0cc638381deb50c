/**
 * Times one training step of every engine that runs here beside PyTorch: same weights, same batch, in turns.
 *
 *   node dist/scripts/bench/step.js --family minilm --tasks rte,cb,copa --data ../shared/data/text [--python .venv/bin/python] [--rounds 5] [--engines node,wasm]
 *
 * Prints a table (median milliseconds, ratio to PyTorch with stacked deltas, peak memory of the process) and, with
 * --out, writes it as JSON. PyTorch stands out of the table where --python has none.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeText } from "../../src/checkpoint/files.js";
import { packageFolder } from "../../src/package.js";
import { toMarkdown } from "../../src/report/table.js";
import { locate } from "../../src/run/locate.js";
import { bucketed, encodeExamples } from "../../src/tasks/batches.js";
import { loadTasks, pickTasks } from "../../src/tasks/registry.js";
import { loadTaskData } from "../../src/tasks/split.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import type { PlainBatch } from "./job.js";

interface Worker { name: string; ask(line?: string): Promise<{ ms?: number; peak?: number; losses?: number[] }>; child: ChildProcess }

function startWorker(name: string, command: string, args: string[]): Worker {
  // PyTorch's threads spin while they wait unless told not to, and stall whatever else runs.
  const env = { ...process.env, OMP_WAIT_POLICY: "passive", GOMP_SPINCOUNT: "0", TF_CPP_MIN_LOG_LEVEL: "2", HF_HUB_OFFLINE: "1" };
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "ignore"], env });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    name, child,
    async ask(line) {
      if (line !== undefined) child.stdin.write(`${line}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error(`${name} did not start`);
      return JSON.parse(value) as { ms?: number };
    },
  };
}

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

async function main(): Promise<void> {
  const { values: o } = parseArgs({ options: {
    family: { type: "string", default: "mini" }, tasks: { type: "string", default: "rte,cb,copa" }, data: { type: "string", default: join(packageFolder, "data", "mini") },
    python: { type: "string", default: join(packageFolder, ".venv", "bin", "python") }, rounds: { type: "string", default: "5" }, "steps-a-round": { type: "string", default: "3" },
    "batch-size": { type: "string", default: "16" }, engines: { type: "string", default: "node,wasm" }, out: { type: "string" }, "keep-batches": { type: "string" },
  } });
  const tasks = pickTasks(await loadTasks(o.data), o.tasks.split(","));
  const places = await locate({ family: o.family, tasks: o.tasks.split(",") });
  const encoder = await loadTokenizer(places.base, 128);
  const batches: PlainBatch[] = [];
  for (const task of tasks) {
    const { validation } = await loadTaskData(o.data, task, Number(o["batch-size"]), 0);
    const { rows, labels, choices } = bucketed(encodeExamples(validation, encoder), 1e9, task.kind === "choice")[0]!;
    const length = Math.max(...rows.map(({ ids }) => ids.length));
    const padded = (of: (row: (typeof rows)[number]) => readonly number[]) => rows.flatMap((row) => [...of(row), ...new Array<number>(length - row.ids.length).fill(0)]);
    batches.push({ size: rows.length, length, ids: padded((r) => r.ids), types: padded((r) => r.types), mask: padded((r) => r.ids.map(() => 1)), labels: [...labels], choices: choices ?? null });
  }
  const folder = await mkdtemp(join(tmpdir(), "train-merge-bench-"));
  const batchFile = join(folder, "batches.json");
  await writeText(batchFile, batches);
  if (o["keep-batches"]) await writeText(o["keep-batches"], batches);
  const here = dirname(fileURLToPath(import.meta.url));
  const shared = [places.base, batchFile];
  const experts = places.experts.map((expert) => `${expert.task}=${expert.folder}`);
  const torch = join(packageFolder, "scripts", "bench", "torch_step.py");
  const candidates = [
    startWorker("PyTorch, stacked deltas", o.python, [torch, ...shared, "stacked", ...experts]),
    startWorker("PyTorch, AdaMerging's arithmetic", o.python, [torch, ...shared, "adamerging", ...experts]),
    ...o.engines.split(",").map((engine) => startWorker(`train-merge, ${engine}`, process.execPath, [join(here, "worker.js"), engine, ...shared, ...experts])),
  ];
  const workers: Worker[] = [];
  for (const worker of candidates) {
    worker.child.on("error", () => {});
    try {
      const { losses } = await worker.ask();
      console.log(`${worker.name}: first losses ${losses!.map((loss) => loss.toFixed(6)).join(" ")}`);
      workers.push(worker);
    } catch (error) {
      console.log(`left out: ${(error as Error).message}`);
    }
  }
  const times = new Map<string, number[]>(workers.map(({ name }) => [name, []]));
  const peaks = new Map<string, number>();
  for (let round = 0; round < Number(o.rounds); round++) {
    for (const worker of workers) {
      const { ms, peak } = await worker.ask(o["steps-a-round"]);
      times.get(worker.name)!.push(ms!);
      peaks.set(worker.name, peak!);
    }
  }
  workers.forEach(({ child }) => child.kill());
  await rm(folder, { recursive: true });
  const reference = times.has(candidates[0]!.name) ? median(times.get(candidates[0]!.name)!) : undefined;
  const results = workers.map(({ name }) => ({ name, ms: median(times.get(name)!), rounds: times.get(name)!, peakBytes: peaks.get(name)! }));
  const shapes = batches.map(({ size, length }) => `${size}×${length}`).join(", ");
  console.log(`\n${o.family}, ${o.tasks}: one step on token rows ${shapes}; median of ${o.rounds} rounds in turns, ${availableParallelism()} cores`);
  console.log(toMarkdown({
    head: ["step", "ms", "× PyTorch stacked", "peak memory"],
    body: results.map(({ name, ms, peakBytes }) => [name, ms.toFixed(0), reference ? (ms / reference).toFixed(2) : "–", `${(peakBytes / 1e9).toFixed(2)} GB`]),
  }));
  if (o.out) await writeText(o.out, { family: o.family, tasks: o.tasks, shapes, results });
  process.exit(0);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
