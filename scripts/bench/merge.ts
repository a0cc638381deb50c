/**
 * The merge op and its gradient alone, in GB/s of what they must move, against a plain copy on the same
 * engine's machine.
 *
 *   node dist/scripts/bench/merge.js [--engines node,wasm] [--parameters 100e6] [--k 8]
 *   [--packings f32,bf16,int8] [--python PYTHON] [--device cpu|cuda] [--rounds 5] [--out FILE.json]
 *
 * Merge: reads the base and k deltas, writes the result. Products: reads the gradient and k deltas. Tensors of 4 M
 * entries, as in a large model. The copy: memory to memory, as many bytes, on --device by PyTorch (with
 * all cores) where --python has it, else by Node. PyTorch does the same merges beside it, as it comes
 * and compiled (torch_merge.py).
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { tensor1d, tensor2d, type Tensor } from "@tensorflow/tfjs-core";
import { z } from "zod";
import { engineNames, startEngine, type EngineName } from "../../src/backend/index.js";
import { writeText } from "../../src/checkpoint/files.js";
import { uploadDeltas, mergeForward, mergeGradient } from "../../src/merge/op.js";
import { bytesPerEntry, packings, packRows, type Packing } from "../../src/merge/packing.js";
import { packageFolder } from "../../src/package.js";
import { toMarkdown } from "../../src/report/table.js";
import { median } from "../../src/report/rows.js";
import { callsOn, copySpeed, wait } from "./machine.js";
import { lastLine, pythonEnvironment, reasonIn } from "./processes.js";

const { values: options } = parseArgs({
  options: {
    engines: { type: "string", default: "node,wasm" },
    parameters: { type: "string", default: "100e6" },
    k: { type: "string", default: "8" },
    packings: { type: "string", default: packings.filter((packing) => packing !== "sparse").join(",") },
    python: { type: "string", default: ".venv/bin/python" },
    device: { type: "string", default: "cpu" },
    "python-seconds": { type: "string", default: "600" },
    rounds: { type: "string", default: "5" },
    out: { type: "string" },
    one: { type: "boolean" },
  },
});
const parameters = Number(options.parameters);
const k = Number(options.k);
const rounds = Number(options.rounds);
const tensorSize = 4 * 2 ** 20;
const width = 2048;

/** GB/s of the merge and of ⟨∂θ, τ⟩. */
const speeds = z.object({ packing: z.enum(packings), merge: z.number(), products: z.number() });
const ownRow = speeds.extend({ engine: z.string() });
type Row = z.infer<typeof ownRow>;

/** Some tensor's worth of numbers, the same everywhere. */
const someValues = (size: number): Float32Array =>
  Float32Array.from({ length: size }, (_, i) => ((i * 7919) % 1000) / 1e5);

/** Milliseconds of a pass over all tensors. */
async function passTime<T>(
  tensors: readonly T[],
  calls: number,
  work: (tensor: T) => Tensor,
): Promise<number> {
  const start = performance.now();
  let last: Tensor | undefined;
  for (let call = 0; call < calls; call++) {
    for (const tensor of tensors) {
      last?.dispose();
      last = work(tensor);
    }
  }
  if (last) await wait(last);
  last?.dispose();
  return (performance.now() - start) / calls;
}

/** Runs in a process of its own, so that each engine has the memory to itself. */
async function measure(engine: EngineName, packing: Packing): Promise<Row> {
  await startEngine(engine);
  const experts = Array.from({ length: k }, (_, i) => i);
  const values = someValues(k * tensorSize);
  const height = tensorSize / width;
  const packed = () =>
    experts.map((e) =>
      packRows(values.subarray(e * tensorSize, (e + 1) * tensorSize), { rows: height, width }, packing),
    );
  const count = Math.max(1, Math.round(parameters / tensorSize));
  const tensors = Array.from({ length: count }, () => ({
    base: tensor2d(values.subarray(0, tensorSize), [height, width]),
    deltas: uploadDeltas(packed(), experts, { rows: height, width }),
  }));
  const coefficients = tensor1d(new Float32Array(k).fill(0.3));
  const calls = callsOn(engine, 8);
  const merges: number[] = [];
  const products: number[] = [];
  for (let round = 0; round <= rounds; round++) {
    merges.push(
      await passTime(tensors, calls, ({ base, deltas }) => mergeForward(base, deltas, coefficients)),
    );
    products.push(await passTime(tensors, calls, ({ base, deltas }) => mergeGradient(base, deltas)));
  }
  const read = count * tensorSize * k * bytesPerEntry(packing, 1);
  // The first round makes things ready and is not counted.
  const speed = (bytes: number, times: readonly number[]) => bytes / median(times.slice(1)) / 1e6;
  return {
    engine,
    packing,
    merge: speed(read + 8 * count * tensorSize, merges),
    products: speed(read + 4 * count * tensorSize, products),
  };
}

const torchSpeeds = z.object({ copy: z.number(), rows: z.array(speeds.extend({ way: z.string() })) });
type TorchSpeeds = z.infer<typeof torchSpeeds>;

/** What a command printed until it ended, was ended, or failed. */
const failedCommand = z.object({ stdout: z.string().default(""), stderr: z.string().default("") });

/**
 * What torch_merge.py measured on a device: GB/s of a copy, and of the same merges. It prints what it has after each
 * measurement: where its time was over, what it had by then counts. Undefined where there is no PyTorch.
 */
function measureTorch(): TorchSpeeds | undefined {
  const program = join(packageFolder, "scripts", "bench", "torch_merge.py");
  let printed: string;
  try {
    printed = execFileSync(options.python, [program, options.device, String(parameters), String(k)], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
      timeout: 1000 * Number(options["python-seconds"]),
      env: pythonEnvironment(),
    });
  } catch (error) {
    printed = failedCommand.safeParse(error).data?.stdout ?? "";
  }
  const line = printed.split("\n").findLast((text) => text.startsWith("{"));
  return line === undefined ? undefined : torchSpeeds.parse(JSON.parse(line));
}

/** One engine and packing in a process of its own; undefined, and a line that says why, where it fails. */
function measureApart(engine: string, packing: string): Row | undefined {
  const which = ["--one", "--engines", engine, "--packings", packing];
  const what = ["--parameters", options.parameters, "--k", options.k, "--rounds", options.rounds];
  try {
    const printed = execFileSync(process.execPath, [fileURLToPath(import.meta.url), ...which, ...what], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      maxBuffer: 1 << 26,
    });
    return ownRow.parse(JSON.parse(lastLine(printed)));
  } catch (error) {
    const complaint = failedCommand.safeParse(error).data?.stderr || String(error);
    console.error(`${engine}, ${packing} left out: ${reasonIn(complaint)}`);
    return undefined;
  }
}

async function measureAll(): Promise<void> {
  const rows: Row[] = [];
  for (const engine of options.engines.split(","))
    for (const packing of options.packings.split(",")) {
      const row = measureApart(engine, packing);
      if (row) rows.push(row);
    }
  const torch = measureTorch();
  const copy = torch
    ? { by: `PyTorch, ${options.device}`, speed: torch.copy }
    : { by: "Node, one thread", speed: copySpeed(2 * parameters * (k + 2)) };
  for (const { way, ...row } of torch?.rows ?? [])
    rows.push({ engine: `PyTorch ${way}, ${options.device}`, ...row });
  const cell = (speed: number) => `${speed.toFixed(1)} (${(speed / copy.speed).toFixed(2)})`;
  console.log(
    `merge op, ${parameters / 1e6} M parameters, k = ${k}: GB/s (ratio to a plain copy of ` +
      `${copy.speed.toFixed(1)} GB/s by ${copy.by})\n`,
  );
  console.log(
    toMarkdown({
      head: ["engine", "packing", "merge", "⟨∂θ, τ⟩"],
      body: rows.map(({ engine, packing, merge, products }) => [
        engine,
        packing,
        cell(merge),
        cell(products),
      ]),
    }),
  );
  if (options.out) await writeText(options.out, { parameters, k, copy, rows });
}

if (options.one) {
  const engine = z.enum(engineNames).parse(options.engines);
  const packing = z.enum(packings).parse(options.packings);
  console.log(JSON.stringify(await measure(engine, packing)));
} else {
  await measureAll();
}
process.exit(0);
