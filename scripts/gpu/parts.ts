/** The parts of the proof: each runs as processes of its own and says what it found as rows of tables. */
import { existsSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { packageFolder } from "../../src/package.js";
import { makeFamily } from "./families.js";
import { limits, sizes } from "./against-cpu.js";
import { memory } from "./memory.js";
import {
  benchScripts,
  here,
  lastJson,
  node,
  run,
  why,
  type Context,
  type Ended,
  type Found,
  type Part,
} from "./part.js";
import type { StepPrograms } from "./programs.js";

/** The conformance suite on the card, by vitest itself. */
async function conformance(context: Context): Promise<Found> {
  const report = join(context.out, "conformance.json");
  const vitest = join(packageFolder, "node_modules", "vitest", "vitest.mjs");
  const ended = await run(context, "conformance", process.execPath, [
    vitest,
    "run",
    "--root",
    packageFolder,
    "test/conformance/webgpu",
    "--reporter=json",
    `--outputFile=${report}`,
    "--reporter=verbose",
  ]);
  const passedLines = ended.stdout.split("\n").filter((line) => line.includes("✓")).length;
  if (!existsSync(report))
    return { ok: false, summary: `${passedLines} tests passed, then ${why(ended, "conformance")}` };
  const { numPassedTests, numFailedTests, numPendingTests, testResults } = JSON.parse(
    readFileSync(report, "utf8"),
  ) as {
    numPassedTests: number;
    numFailedTests: number;
    numPendingTests: number;
    testResults: { assertionResults: { status: string; fullName: string; failureMessages: string[] }[] }[];
  };
  const failed = testResults
    .flatMap(({ assertionResults }) => assertionResults)
    .filter(({ status }) => status === "failed");
  return {
    ok: numFailedTests === 0 && numPassedTests > 0,
    summary: `${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped`,
    tables:
      failed.length > 0
        ? [
            {
              title: "failed",
              head: ["test", "why"],
              body: failed.map(({ fullName, failureMessages }) => [
                fullName,
                failureMessages[0]?.split("\n")[0] ?? "",
              ]),
            },
          ]
        : [],
  };
}

/** A ratio beside its goal, or why there is none. */
function judged({ emulated }: Context, ratio: number | undefined, what: string, goal: string): string {
  if (emulated) return "emulated: no speed is judged";
  return ratio === undefined
    ? "not judged: no PyTorch on the card beside it"
    : `${ratio.toFixed(2)} ${what} (to reach: ${goal})`;
}

interface OpRow {
  engine: string;
  packing: string;
  merge: number;
  products: number;
}

/** The merge op in GB/s beside a copy. */
async function op(context: Context): Promise<Found> {
  const file = join(context.out, "op.json");
  const size = context.emulated ? "8e6" : "50e6";
  const args = ["--engines", "webgpu", "--packings", "f32,bf16,int8", "--parameters", size, "--out", file];
  // Without PyTorch on the card there is no copy on it to stand beside: none on the CPU takes its place.
  const peer = context.torch
    ? ["--python", context.python, "--device", "cuda", "--python-seconds", "25"]
    : ["--python", "none"];
  const rounds = ["--rounds", context.emulated ? "1" : "5"];
  const ended = await node(context, "op", join(benchScripts, "merge.js"), [...args, ...peer, ...rounds]);
  if (!existsSync(file)) return { ok: false, summary: why(ended, "op") };
  const { copy, rows } = JSON.parse(readFileSync(file, "utf8")) as {
    copy: { by: string; speed: number };
    rows: OpRow[];
  };
  const own = rows.find(({ engine, packing }) => engine === "webgpu" && packing === "f32");
  const onCard = copy.by.includes("cuda");
  const ratio = own && onCard ? own.merge / copy.speed : undefined;
  const cell = (speed: number) =>
    onCard ? `${speed.toFixed(1)} (${(speed / copy.speed).toFixed(2)})` : speed.toFixed(1);
  const beside = onCard ? ` (ratio to a copy of ${copy.speed.toFixed(1)} GB/s by ${copy.by})` : "";
  return {
    ok: own !== undefined && (ratio === undefined || ratio >= 0.7),
    summary: own
      ? `${own.merge.toFixed(1)} GB/s in float32, ${judged(context, ratio, "of a copy", "0.70")}`
      : "webgpu is missing: see op.log",
    tables: [
      {
        title: `Merge op, ${Number(size) / 1e6} M parameters, k = 8: GB/s${beside}`,
        head: ["engine", "packing", "merge", "⟨∂θ, τ⟩"],
        body: rows.map(({ engine, packing, merge, products }) => [
          engine,
          packing,
          cell(merge),
          cell(products),
        ]),
      },
    ],
    data: { copy, rows },
  };
}

interface StepRow {
  name: string;
  /** Of PyTorch, its way: see scripts/bench/torch_peers.py. */
  peer?: string;
  ms: number;
  partMedians: Record<string, number>;
  peakBytes: number;
}

/** One call of step.js; what it measured, nothing where it did not end in time. */
async function stepRows(
  context: Context,
  log: string,
  engines: string,
  peers: string,
): Promise<{ what: string; rows: StepRow[]; ended: Ended }> {
  const file = join(context.out, `${log}.json`);
  const rounds = context.emulated
    ? ["--rounds", "1", "--steps-a-round", "1"]
    : ["--rounds", "2", "--steps-a-round", "3"];
  const name = context.emulated ? "small-4" : "base-8";
  const batches = join(context.work, "batches.json");
  const kept = ["--folder", context.work, "--keep-batches", batches];
  const which = ["--case", name, "--engines", engines, "--peers", peers, ...kept];
  const where = ["--device", context.torch ? "cuda" : "cpu", "--python", context.python, "--out", file];
  const ended = await node(context, log, join(benchScripts, "step.js"), which.concat(where, rounds));
  if (!existsSync(file)) return { what: "", rows: [], ended };
  const [{ what, results }] = JSON.parse(readFileSync(file, "utf8")) as [
    { what: string; results: StepRow[] },
  ];
  return { what, rows: results, ended };
}

/** The training step and its parts beside PyTorch: as it comes first, compiled in the time that is left. */
async function step(context: Context): Promise<Found> {
  const first = await stepRows(context, "step", "webgpu", context.torch ? "stacked,stacked+tf32" : "");
  const isTime = context.deadline - performance.now() > 30_000;
  const compiled =
    context.torch && isTime
      ? await stepRows(context, "step-compiled", "", "stacked+compile,stacked+compile+tf32")
      : undefined;
  const rows = [...first.rows, ...(compiled?.rows ?? [])];
  const own = rows.find(({ name }) => name.includes("webgpu"));
  const eager = rows.find(({ peer }) => peer === "stacked");
  const part = (parts: Record<string, number>, which: string) => parts[which]?.toFixed(1) ?? "in backward";
  const ratio = own && eager ? own.ms / eager.ms : undefined;
  return {
    ok: own !== undefined && (ratio === undefined || ratio <= 3),
    summary: own
      ? `${own.ms.toFixed(0)} ms a step, ${judged(context, ratio, "× PyTorch eager float32", "at most 3")}`
      : `webgpu is missing: ${why(first.ended, "step")}`,
    tables: [
      {
        title: `Step, ${first.what}, ms`,
        head: ["", "step", "× PyTorch eager", "merge", "forward", "backward", "⟨∂θ, τ⟩"],
        body: rows.map(({ name, ms, partMedians }) => [
          name,
          ms.toFixed(1),
          eager ? (ms / eager.ms).toFixed(2) : "–",
          part(partMedians, "merge"),
          part(partMedians, "forward"),
          part(partMedians, "backward"),
          part(partMedians, "products"),
        ]),
      },
    ],
    data: rows,
  };
}

/** What each program of that step takes on the card, and the host to record them all. */
async function programs(context: Context): Promise<Found> {
  const batches = join(context.work, "batches.json");
  if (!existsSync(batches)) return { ok: false, summary: "the part step has not run in this folder" };
  const kind = context.emulated ? "encoder-small" : "encoder";
  const { base, experts } = await makeFamily(kind, join(context.work, kind));
  const ended = await node(context, "programs", join(here, "programs.js"), [base, batches, ...experts]);
  const answer = lastJson<StepPrograms>(ended);
  if (!answer) return { ok: false, summary: why(ended, "programs") };
  const { stepMs, recordMs, dispatches, submissions } = answer;
  const all = answer.programs.reduce((sum, { ms }) => sum + ms, 0);
  return {
    ok: true,
    summary:
      `${stepMs.toFixed(0)} ms a step, of which ${recordMs.toFixed(0)} to record ${dispatches} programs in ` +
      `${submissions} submissions; ${all.toFixed(0)} ms by the card's clock`,
    tables: [
      {
        title: "Programs of a step that take longest, by the card's clock",
        head: ["program, its inputs → output", "calls", "ms", "share"],
        body: answer.programs
          .slice(0, 40)
          .map(({ name, calls, ms }) => [
            name,
            String(calls),
            ms.toFixed(2),
            `${((100 * ms) / all).toFixed(1)} %`,
          ]),
      },
    ],
    data: answer,
  };
}

/** TensorFlow on the card, where the machine has it: set up as a user would, then the step. */
async function nodeGpu(context: Context): Promise<Found> {
  const main = join(here, "..", "..", "src", "cli", "main.js");
  const found = await run(context, "tensorflow", context.python, [
    "-c",
    "import os, tensorflow as tf; assert tf.config.list_physical_devices('GPU'), 'TensorFlow " +
      "lists no GPU'; print(os.path.dirname(tf.__file__))",
  ]);
  const folder = found.stdout.trim().split("\n").at(-1);
  if (found.code !== 0 || !folder)
    return {
      ok: true,
      summary: "not tried: this machine's Python has no TensorFlow that sees a card (tensorflow.log)",
    };
  const npm = await run(context, "npm", "npm", ["view", "@tensorflow/tfjs-node@4.22.0", "version"]);
  if (npm.code !== 0)
    return {
      ok: true,
      summary: "not tried: TensorFlow sees the card, but npm cannot fetch tfjs-node here (npm.log)",
    };
  const cache = join(context.work, "cache");
  await mkdir(cache, { recursive: true });
  const env = { TRAIN_MERGE_CACHE: cache };
  const set = await node(
    context,
    "setup-native",
    main,
    ["setup", "native", "--gpu", "--tensorflow", folder],
    env,
  );
  if (set.code !== 0)
    return { ok: false, summary: `train-merge setup native --gpu: ${why(set, "setup-native")}` };
  const file = join(context.out, "node-gpu.json");
  const ended = await node(
    context,
    "node-gpu",
    join(benchScripts, "step.js"),
    [
      "--case",
      "base-8",
      "--engines",
      "node-gpu",
      "--peers",
      "",
      "--folder",
      context.work,
      "--rounds",
      "3",
      "--out",
      file,
    ],
    env,
  );
  if (!existsSync(file)) return { ok: false, summary: why(ended, "node-gpu") };
  const [{ results }] = JSON.parse(readFileSync(file, "utf8")) as [{ results: { ms: number }[] }];
  return {
    ok: results.length > 0,
    summary:
      results.length > 0
        ? `${results[0]!.ms.toFixed(0)} ms a step`
        : "the engine did not start (node-gpu.log)",
    data: results,
  };
}

export const parts: readonly Part[] = [
  { name: "op", what: "the merge op in GB/s, beside a copy and PyTorch", limit: 100, run: op },
  { name: "step", what: "the training step and its parts, beside PyTorch", limit: 120, run: step },
  { name: "programs", what: "the step's programs by the card's clock", limit: 60, run: programs },
  { name: "limits", what: "an embedding larger than a binding", limit: 90, run: limits },
  { name: "sizes", what: "layers of sizes of today, on short and long texts", limit: 60, run: sizes },
  { name: "conformance", what: "the conformance suite on webgpu", limit: 90, run: conformance },
  { name: "memory", what: "peaks under a budget, flat, pairwise and in a tree", limit: 100, run: memory },
  { name: "node-gpu", what: "TensorFlow with CUDA, where it is there", limit: 30, run: nodeGpu },
];
