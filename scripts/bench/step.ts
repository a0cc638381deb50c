/**
 * Times training steps, their parts and evaluation of every engine that runs here beside PyTorch: same weights, same
 * batches, in turns.
 *
 *   node dist/scripts/bench/step.js --case minilm-3,minilm-8,base-8 --data DATA --python PYTHON
 *   [--rounds 5] [--engines node,wasm]
 *     [--peers stacked,adamerging,stacked+compile,stacked+tf32] [--device cpu|cuda] [--folder KEEP] [--out FILE.json]
 *
 * Cases: mini-3 (the family that ships), minilm-3 and minilm-8 (checkpoints/minilm), base-8 (a random
 * 12 × 768 encoder; 2 GB of disk; PyTorch takes 12 GB for each of its two ways, and --peers stacked or
 * --peers adamerging runs one of them). Prints Markdown tables: medians, ratios to PyTorch with stacked
 * deltas, peak memory of each process.
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
import { toMarkdown } from "../../src/report/formats.js";
import { randomCase, realCase, type Case } from "./cases.js";
import { median } from "../../src/report/interval.js";

interface Answer {
  ms?: number;
  peak?: number;
  losses?: number[];
  tokensPerSecond?: number;
  parts?: Record<string, number>;
}
interface Worker {
  name: string;
  ask(command?: object): Promise<Answer>;
  child: ChildProcess;
}

/** Such as "PyTorch, stacked deltas, compile, tf32" for stacked+compile+tf32. */
function peerName(variant: string): string {
  const [way, ...extras] = variant.split("+");
  return [way === "stacked" ? "PyTorch, stacked deltas" : "PyTorch, AdaMerging's arithmetic", ...extras].join(
    ", ",
  );
}

function startWorker(name: string, command: string, args: string[], device = "cpu"): Worker {
  // PyTorch's threads spin while they wait unless told not to, and stall whatever else runs.
  const env = {
    ...process.env,
    DEVICE: device,
    // Python gets the libraries that it would find by itself, whatever a card's Vulkan driver needs (scripts/gpu).
    ...(process.env["TRAIN_MERGE_PYTHON_LIBRARIES"] !== undefined &&
      !command.endsWith("node") && { LD_LIBRARY_PATH: process.env["TRAIN_MERGE_PYTHON_LIBRARIES"] }),
    OMP_WAIT_POLICY: "passive",
    GOMP_SPINCOUNT: "0",
    TF_CPP_MIN_LOG_LEVEL: "2",
    HF_HUB_OFFLINE: "1",
  };
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"], env });
  let complaint = "";
  child.stderr.on("data", (chunk: Buffer) => (complaint = (complaint + chunk.toString()).slice(-2000)));
  child.on("error", (error) => (complaint = error.message));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    name,
    child,
    async ask(request) {
      if (request !== undefined) child.stdin.write(`${JSON.stringify(request)}\n`);
      const { value, done } = await lines.next();
      if (done)
        throw new Error(
          `${name} is left out: ${
            complaint
              .trim()
              .split("\n")
              .find((line) => /error|memory|install/i.test(line)) ?? "it did not start"
          }`,
        );
      return JSON.parse(value) as Answer;
    },
  };
}

interface Result {
  name: string;
  ms: number;
  rounds: number[];
  peakBytes: number;
  tokensPerSecond: number;
  parts: Record<string, number>;
}

interface How {
  python: string;
  device: string;
  peers: readonly string[];
  engines: readonly string[];
  rounds: number;
  steps: number;
}

async function measure(
  { base, experts, batches }: Case,
  folder: string,
  { python, device, peers, engines, rounds, steps }: How,
): Promise<Result[]> {
  const batchFile = join(folder, "batches.json");
  await writeText(batchFile, [...batches]);
  const here = dirname(fileURLToPath(import.meta.url));
  const torch = join(packageFolder, "scripts", "bench", "torch_step.py");
  // Ours first: a card that is full leaves a peer out, not us.
  const candidates = [
    ...engines.map(
      (engine) => () =>
        startWorker(`train-merge, ${engine}`, process.execPath, [
          join(here, "worker.js"),
          engine,
          base,
          batchFile,
          ...experts,
        ]),
    ),
    ...peers.map(
      (variant) => () =>
        startWorker(peerName(variant), python, [torch, base, batchFile, variant, ...experts], device),
    ),
  ];
  let workers: Worker[] = [];
  for (const start of candidates) {
    const worker = start();
    try {
      const { losses } = await worker.ask();
      console.error(`${worker.name}: first losses ${losses!.map((loss) => loss.toFixed(5)).join(" ")}`);
      workers.push(worker);
    } catch (error) {
      console.error((error as Error).message);
    }
  }
  const results = workers.map(
    ({ name }): Result & { speeds: number[]; allParts: Record<string, number>[] } => ({
      name,
      ms: 0,
      rounds: [],
      peakBytes: 0,
      tokensPerSecond: 0,
      parts: {},
      speeds: [],
      allParts: [],
    }),
  );
  const resultOf = new Map(workers.map((worker, i) => [worker, results[i]!]));
  /** A worker that fails in between is left out of the rounds that follow. */
  const each = async (work: (worker: Worker, result: (typeof results)[number]) => Promise<void>) => {
    for (const worker of workers) {
      try {
        await work(worker, resultOf.get(worker)!);
      } catch (error) {
        console.error((error as Error).message);
        workers = workers.filter((one) => one !== worker);
      }
    }
  };
  for (let round = 0; round < rounds; round++) {
    await each(async (worker, result) => {
      const { ms, peak } = await worker.ask({ what: "step", n: steps });
      result.rounds.push(ms!);
      result.peakBytes = peak!;
    });
    await each(async (worker, result) => {
      result.speeds.push((await worker.ask({ what: "evaluate", n: 1 })).tokensPerSecond!);
      result.allParts.push((await worker.ask({ what: "parts", n: 1 })).parts!);
    });
  }
  workers.forEach(({ child }) => child.kill());
  const whole = results.filter(({ speeds }) => speeds.length === rounds);
  return whole.map(({ speeds, allParts, ...result }) => ({
    ...result,
    ms: median(result.rounds),
    tokensPerSecond: median(speeds),
    parts: Object.fromEntries(
      Object.keys(allParts[0] ?? {}).map((part) => [part, median(allParts.map((parts) => parts[part]!))]),
    ),
  }));
}

function tables(results: readonly Result[]): string {
  const stacked = results.find(({ name }) => name === peerName("stacked"))?.ms;
  const adamerging = results.find(({ name }) => name === peerName("adamerging"))?.ms;
  const ratio = (ms: number, of: number | undefined) => (of === undefined ? "–" : (ms / of).toFixed(2));
  const part = (parts: Record<string, number>, name: string) => parts[name]?.toFixed(0) ?? "in backward";
  return toMarkdown({
    head: [
      "step",
      "ms",
      "× PyTorch stacked",
      "× AdaMerging's",
      "peak memory",
      "merge",
      "forward",
      "backward",
      "⟨∂θ, τ⟩",
      "optimiser",
      "evaluation, tokens/s",
    ],
    body: results.map(({ name, ms, peakBytes, parts, tokensPerSecond }) => [
      name,
      ms.toFixed(0),
      ratio(ms, stacked),
      ratio(ms, adamerging),
      `${(peakBytes / 1e9).toFixed(2)} GB`,
      part(parts, "merge"),
      part(parts, "forward"),
      part(parts, "backward"),
      part(parts, "products"),
      part(parts, "optimiser"),
      tokensPerSecond.toFixed(0),
    ]),
  });
}

async function main(): Promise<void> {
  const { values: o } = parseArgs({
    options: {
      case: { type: "string", default: "mini-3" },
      data: { type: "string", default: join(packageFolder, "data", "mini") },
      python: { type: "string", default: join(packageFolder, ".venv", "bin", "python") },
      rounds: { type: "string", default: "5" },
      "steps-a-round": { type: "string", default: "2" },
      peers: { type: "string", default: "stacked,adamerging" },
      engines: { type: "string", default: "node,wasm" },
      out: { type: "string" },
      "keep-batches": { type: "string" },
      device: { type: "string", default: "cpu" },
      folder: { type: "string" },
    },
  });
  const folder = await mkdtemp(join(tmpdir(), "train-merge-bench-"));
  const makers: Record<string, () => Promise<Case>> = {
    "mini-3": () => realCase("mini", ["rte", "cb", "copa"], 3, join(packageFolder, "data", "mini"), 16),
    "minilm-3": () => realCase("minilm", ["rte", "cb", "copa"], 3, o.data, 16),
    "minilm-8": () => realCase("minilm", ["rte", "cb", "copa", "sst2", "trec6"], 8, o.data, 16),
    "base-8": () => randomCase("encoder", join(o.folder ?? folder, "encoder"), 8, 64),
    "small-4": () => randomCase("encoder-small", join(o.folder ?? folder, "encoder-small"), 4, 32),
  };
  const all: object[] = [];
  for (const name of o.case.split(",")) {
    const make = makers[name];
    if (!make) throw new Error(`--case ${name}: it must be one of ${Object.keys(makers).join(", ")}`);
    const chosen = await make();
    if (o["keep-batches"]) await writeText(o["keep-batches"], [...chosen.batches]);
    const results = await measure(chosen, folder, {
      python: o.python,
      device: o.device,
      peers: o.peers.split(",").filter(Boolean),
      engines: o.engines.split(",").filter(Boolean),
      rounds: Number(o.rounds),
      steps: Number(o["steps-a-round"]),
    });
    const given = chosen.batches.reduce((sum, { size, length }) => sum + size * length, 0);
    const real = chosen.batches.reduce((sum, { mask }) => sum + mask.reduce((a, b) => a + b, 0), 0);
    console.log(
      `\n${chosen.what}: ${given} tokens with padding, ${real} without; medians of ${o.rounds} ` +
        `rounds in turns, ${availableParallelism()} cores\n\n${tables(results)}`,
    );
    all.push({
      case: name,
      what: chosen.what,
      tokens: { padded: given, real },
      cores: availableParallelism(),
      results,
    });
    if (o.out) await writeText(o.out, all);
  }
  await rm(folder, { recursive: true, force: true });
  process.exit(0);
}

await main();
