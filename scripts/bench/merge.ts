/**
 * The merge op and its gradient alone, in GB/s of what they must move, against a plain copy on the same
 * engine's machine.
 *
 *   node dist/scripts/bench/merge.js --engines node,wasm --parameters 100e6 --k 8 [--packings
 *   f32,bf16,int8] [--python PYTHON]
 *     [--device cpu|cuda] [--rounds 5] [--out FILE.json]
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
import { reshape, slice, tensor1d, tensor2d, tidy, type Tensor } from "@tensorflow/tfjs-core";
import { runningOn, startEngine, type EngineName } from "../../src/backend/index.js";
import { writeText } from "../../src/checkpoint/files.js";
import { uploadDeltas } from "../../src/merge/deltas.js";
import { bytesPerEntry, packings, packRows, type Packing } from "../../src/merge/packing.js";
import { mergeForward, mergeGradient } from "../../src/merge/op.js";
import { packageFolder } from "../../src/package.js";
import { toMarkdown } from "../../src/report/formats.js";
import { median } from "../../src/report/interval.js";
import { pythonEnvironment } from "./python.js";

const tensorSize = 4 * 2 ** 20;
const width = 2048;

interface Row {
  engine: string;
  packing: Packing;
  merge: number;
  products: number;
}

/** Runs in a process of its own, so that each engine has the memory to itself. */
async function measure(
  engine: EngineName,
  packing: Packing,
  parameters: number,
  k: number,
  rounds: number,
): Promise<Row> {
  await startEngine(engine);
  const count = Math.max(1, Math.round(parameters / tensorSize));
  const values = (size: number) => Float32Array.from({ length: size }, (_, i) => ((i * 7919) % 1000) / 1e5);
  const experts = Array.from({ length: k }, (_, i) => i);
  const one = values(k * tensorSize);
  const stacks = Array.from({ length: count }, () =>
    uploadDeltas(
      experts.map((e) =>
        packRows(one.subarray(e * tensorSize, (e + 1) * tensorSize), tensorSize / width, width, packing),
      ),
      experts,
      tensorSize / width,
      width,
      packing,
    ),
  );
  const bases = stacks.map(() => tensor2d(one.subarray(0, tensorSize), [tensorSize / width, width]));
  const c = tensor1d(new Float32Array(k).fill(0.3));
  // Several times over, so that what is read back at the end, and waiting for it, are a small part.
  const times = ["webgpu", "node-gpu"].includes(engine) && !runningOn()?.emulated ? 8 : 1;
  const pass = async (what: (i: number) => Tensor): Promise<number> => {
    const start = performance.now();
    let last: Tensor | undefined;
    for (let i = 0; i < times * count; i++) {
      last?.dispose();
      last = what(i % count);
    }
    // The queue runs in order: when one number of the last is there, all are done.
    const end = tidy(() => slice(reshape(last!, [-1]), [0], [1]));
    await end.data();
    end.dispose();
    last!.dispose();
    return (performance.now() - start) / times;
  };
  const [merges, products]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds + 1; round++) {
    merges.push(await pass((i) => mergeForward(bases[i]!, stacks[i]!, c)));
    products.push(await pass((i) => mergeGradient(bases[i]!, stacks[i]!)));
  }
  const deltas = count * tensorSize * k * bytesPerEntry(packing, 1);
  const speed = (bytes: number, times: number[]) => bytes / median(times.slice(1)) / 1e6;
  return {
    engine,
    packing,
    merge: speed(deltas + 8 * count * tensorSize, merges),
    products: speed(deltas + 4 * count * tensorSize, products),
  };
}

interface TorchRow {
  way: string;
  packing: Packing;
  merge: number;
  products: number;
}

interface TorchSpeeds {
  copy: number;
  rows: TorchRow[];
}

/** The last line of JSON: torch_merge.py prints what it has after each measurement. */
function lastSpeeds(printed: string): TorchSpeeds | undefined {
  const line = printed.split("\n").findLast((text) => text.startsWith("{"));
  return line === undefined ? undefined : (JSON.parse(line) as TorchSpeeds);
}

/**
 * What torch_merge.py measured on a device: GB/s of a copy, and of the same merges. Undefined where
 * there is no PyTorch.
 */
function torchSpeeds(python: string, device: string, parameters: number, k: number): TorchSpeeds | undefined {
  const program = join(packageFolder, "scripts", "bench", "torch_merge.py");
  try {
    const answer = execFileSync(python, [program, device, String(parameters), String(k)], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
      timeout: 1000 * Number(o["python-seconds"]),
      env: pythonEnvironment(),
    });
    return lastSpeeds(answer);
  } catch (error) {
    // Where its time was over, what it had by then counts.
    return lastSpeeds((error as { stdout?: string }).stdout ?? "");
  }
}

/** GB/s, read and written, of copying `bytes / 2` from one place to another with one thread. */
function copySpeed(bytes: number): number {
  const size = Math.floor(bytes / 2 / 4);
  const [from, to] = [new Float32Array(size).fill(1), new Float32Array(size)];
  const times = Array.from({ length: 6 }, () => {
    const start = performance.now();
    to.set(from);
    return performance.now() - start;
  });
  return (size * 8) / median(times.slice(1)) / 1e6;
}

const { values: o } = parseArgs({
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
const [parameters, k] = [Number(o.parameters), Number(o.k)];
if (o.one) {
  const row = await measure(o.engines as EngineName, o.packings as Packing, parameters, k, Number(o.rounds));
  console.log(JSON.stringify(row));
  process.exit(0);
}
const rows: Row[] = [];
for (const engine of o.engines.split(",")) {
  for (const packing of o.packings.split(",")) {
    try {
      const answer = execFileSync(
        process.execPath,
        [
          fileURLToPath(import.meta.url),
          "--one",
          "--engines",
          engine,
          "--packings",
          packing,
          "--parameters",
          o.parameters,
          "--k",
          o.k,
          "--rounds",
          o.rounds,
        ],
        { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], maxBuffer: 1 << 26 },
      );
      rows.push(JSON.parse(answer.trim().split("\n").at(-1)!) as Row);
    } catch (error) {
      console.error(
        `${engine}, ${packing} left out: ${
          String((error as { stderr?: string }).stderr ?? error)
            .trim()
            .split("\n")
            .find((line) => /error|memory/i.test(line)) ?? "it failed"
        }`,
      );
    }
  }
}
const torch = torchSpeeds(o.python, o.device, parameters, k);
const copy = torch
  ? { by: `PyTorch, ${o.device}`, speed: torch.copy }
  : { by: "Node, one thread", speed: copySpeed(4 * parameters * (k + 2)) };
for (const { way, ...row } of torch?.rows ?? []) rows.push({ engine: `PyTorch ${way}, ${o.device}`, ...row });
const cell = (speed: number) => `${speed.toFixed(1)} (${(speed / copy.speed).toFixed(2)})`;
console.log(
  `merge op, ${parameters / 1e6} M parameters, k = ${k}: GB/s (ratio to a plain copy of ` +
    `${copy.speed.toFixed(1)} GB/s by ${copy.by})\n`,
);
console.log(
  toMarkdown({
    head: ["engine", "packing", "merge", "⟨∂θ, τ⟩"],
    body: rows.map(({ engine, packing, merge, products }) => [engine, packing, cell(merge), cell(products)]),
  }),
);
if (o.out) await writeText(o.out, { parameters, k, copy, rows });
process.exit(0);
