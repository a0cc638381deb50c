/**
 * From the command to the folder, as a user counts time: `train-merge --tasks … --out …` as a whole process beside a
 * plain Python script that does the same (torch_command.py), in turns.
 *
 *   node dist/scripts/bench/command.js --python PYTHON [--families mini,minilm] [--data DATA]
 *   [--tasks rte,cb,copa] [--rounds 5] [--steps 100] [--engines node] [--ways packed] [--out FILE.json]
 *
 * --data is minilm's (shared/data/text). Both sides get the same 32 validation examples a task. Prints Markdown:
 * medians with the lowest and highest round.
 */
import { spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { z } from "zod";
import { readJson, writeText } from "../../src/checkpoint/files.js";
import { packageFolder } from "../../src/package.js";
import { toMarkdown } from "../../src/report/table.js";
import { mean, median } from "../../src/report/rows.js";
import { cores, lastLine, pythonEnvironment } from "./processes.js";
import { ratio, spread } from "./spread.js";

const { values: options } = parseArgs({
  options: {
    families: { type: "string", default: "mini,minilm" },
    data: { type: "string", default: join(packageFolder, "data", "text") },
    tasks: { type: "string", default: "rte,cb,copa" },
    python: { type: "string", default: join(packageFolder, ".venv", "bin", "python") },
    rounds: { type: "string", default: "5" },
    steps: { type: "string", default: "100" },
    engines: { type: "string", default: "node" },
    ways: { type: "string", default: "packed" },
    out: { type: "string" },
  },
});
const examplesATask = 32;

/** What a process said of itself when it was done. */
interface Report {
  /** Of the steps alone. */
  readonly trainSeconds: number;
  readonly peakBytes: number;
  /** Mean over the tasks, of the merged model, in the test files; undefined where it was not measured. */
  readonly accuracy: number | undefined;
}

interface Side {
  readonly name: string;
  readonly command: string;
  args(out: string): string[];
  readonly env: NodeJS.ProcessEnv;
  report(out: string, printed: string): Promise<Report>;
}

interface Inputs {
  readonly family: string;
  readonly data: string;
  readonly tasks: readonly string[];
}

/** Runs a command to its end. @throws Error with what it complained of last */
function finished({ command, env }: Side, args: string[]): Promise<{ seconds: number; printed: string }> {
  const start = performance.now();
  const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  let printed = "";
  let complaint = "";
  child.stdout.on("data", (chunk: Buffer) => {
    printed += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    complaint = (complaint + chunk.toString()).slice(-2000);
  });
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => {
      const seconds = (performance.now() - start) / 1000;
      if (code === 0) resolve({ seconds, printed });
      else reject(new Error(`${command} ended with ${code}: ${complaint.trim()}`));
    });
  });
}

const runFile = z.object({ seconds: z.object({ train: z.number() }), peakMemoryBytes: z.number() });
const resultsFile = z.object({ rows: z.array(z.object({ method: z.string(), value: z.number() })) });

async function ownReport(out: string): Promise<Report> {
  const { seconds, peakMemoryBytes } = runFile.parse(await readJson(join(out, "run.json")));
  const { rows } = resultsFile.parse(await readJson(join(out, "results.json")));
  const merged = rows.filter(({ method }) => method === "supermerge").map(({ value }) => value);
  return { trainSeconds: seconds.train, peakBytes: peakMemoryBytes, accuracy: mean(merged) };
}

const torchAnswer = z.object({
  seconds: z.object({ train: z.number() }),
  peakBytes: z.number(),
  accuracies: z.object({ supermerge: z.number().optional() }),
});

async function torchReport(printed: string): Promise<Report> {
  const { seconds, peakBytes, accuracies } = torchAnswer.parse(JSON.parse(lastLine(printed)));
  return { trainSeconds: seconds.train, peakBytes, accuracy: accuracies.supermerge };
}

function ownSide(engine: string, { family, data, tasks }: Inputs): Side {
  const program = join(dirname(fileURLToPath(import.meta.url)), "..", "..", "src", "cli", "main.js");
  const named = ["--tasks", tasks.join(","), "--family", family, "--data", data, "--backend", engine];
  return {
    name: `train-merge, ${engine}`,
    command: process.execPath,
    args: (out) => [program, ...named, "--steps", options.steps, "--out", out],
    env: process.env,
    report: ownReport,
  };
}

function torchSide(way: string, { family, data, tasks }: Inputs, mergeOnly: boolean): Side {
  const program = join(packageFolder, "scripts", "bench", "torch_command.py");
  const named = ["--way", way, "--tasks", tasks.join(","), "--family", family, "--data", data];
  const less = mergeOnly ? ["--merge-only"] : [];
  return {
    name: `Python, ${way}${mergeOnly ? ", only load, train and write" : ""}`,
    command: options.python,
    args: (out) => [program, ...named, "--steps", options.steps, "--out", out, ...less],
    env: pythonEnvironment(),
    report: (_out, printed) => torchReport(printed),
  };
}

/** A data folder with the first examples of each validation file, so that both sides draw the same. */
async function sameExamples(from: string, to: string, tasks: readonly string[]): Promise<string> {
  await mkdir(to, { recursive: true });
  await cp(join(from, "tasks.json"), join(to, "tasks.json"));
  for (const task of tasks) {
    await mkdir(join(to, task));
    await cp(join(from, task, "test.jsonl"), join(to, task, "test.jsonl"));
    const lines = (await readFile(join(from, task, "validation.jsonl"), "utf8")).trim().split("\n");
    await writeText(join(to, task, "validation.jsonl"), `${lines.slice(0, examplesATask).join("\n")}\n`);
  }
  return to;
}

interface Measured extends Side {
  readonly seconds: number[];
  readonly reports: Report[];
}

/** Every side in turns, each round begun by another one. One that fails is left out. */
async function measureInTurns(sides: readonly Side[], rounds: number, folder: string): Promise<Measured[]> {
  let running = sides.map((side): Measured => ({ ...side, seconds: [], reports: [] }));
  for (let round = 0; round < rounds; round++) {
    const first = round % Math.max(1, running.length);
    for (const side of [...running.slice(first), ...running.slice(0, first)]) {
      const out = join(folder, "out");
      try {
        const { seconds, printed } = await finished(side, side.args(out));
        side.reports.push(await side.report(out, printed));
        side.seconds.push(seconds);
        console.error(`round ${round + 1} of ${rounds}, ${side.name}: ${seconds.toFixed(1)} s`);
      } catch (error) {
        console.error(`${side.name} is left out: ${error instanceof Error ? error.message : String(error)}`);
        running = running.filter((other) => other !== side);
      }
      await rm(out, { recursive: true, force: true });
    }
  }
  return running;
}

/** What a round took beside its steps: to start, load, search, write and test. */
const restOf = ({ seconds, reports }: Measured): number[] =>
  seconds.map((whole, i) => whole - (reports[i]?.trainSeconds ?? 0));

function commandTable(measured: readonly Measured[]): string {
  const own = measured[0];
  return toMarkdown({
    head: ["command", "s", "× train-merge", "steps, s", "the rest, s", "peak memory", "test accuracy, %"],
    body: measured.map((side) => {
      const accuracies = side.reports.flatMap(({ accuracy }) => accuracy ?? []);
      return [
        side.name,
        spread(side.seconds, 1),
        own ? ratio(side.seconds, own.seconds) : "–",
        spread(
          side.reports.map(({ trainSeconds }) => trainSeconds),
          1,
        ),
        spread(restOf(side), 1),
        `${(median(side.reports.map(({ peakBytes }) => peakBytes)) / 1e9).toFixed(2)} GB`,
        accuracies.length > 0 ? (100 * mean(accuracies)).toFixed(1) : "–",
      ];
    }),
  });
}

const listOf = (text: string): string[] => text.split(",").filter(Boolean);

async function measureFamily(name: string, folder: string): Promise<object> {
  const tasks = listOf(options.tasks);
  const from = name === "mini" ? join(packageFolder, "data", "mini") : options.data;
  const inputs = {
    family: join(packageFolder, "checkpoints", name),
    data: await sameExamples(from, join(folder, name), tasks),
    tasks,
  };
  const sides = [
    ...listOf(options.engines).map((engine) => ownSide(engine, inputs)),
    ...listOf(options.ways).flatMap((way) => [torchSide(way, inputs, false), torchSide(way, inputs, true)]),
  ];
  const measured = await measureInTurns(sides, Number(options.rounds), folder);
  const how = `${options.steps} steps; ${options.rounds} rounds in turns, ${cores} cores`;
  console.log(
    `${name}, ${tasks.join(", ")}: from the command to the folder, ${how}; medians (lowest–highest)\n\n` +
      `${commandTable(measured)}\n`,
  );
  const rows = measured.map(({ name: side, seconds, reports }) => ({ side, seconds, reports }));
  return { family: name, tasks, steps: Number(options.steps), cores, rows };
}

const folder = await mkdtemp(join(tmpdir(), "train-merge-command-"));
const families: object[] = [];
for (const name of listOf(options.families)) {
  families.push(await measureFamily(name, folder));
  if (options.out) await writeText(options.out, families);
}
await rm(folder, { recursive: true, force: true });
