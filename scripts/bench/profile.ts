/**
 * Where a step's time goes: the exclusive time and number of calls of every kernel, and what is left for JavaScript.
 *
 *   node dist/scripts/bench/profile.js [--shapes] ENGINE BASE BATCHES.json TASK=EXPERT… [STEPS]
 *
 * BATCHES.json is what scripts/bench/step.js --keep-batches FILE writes. Kernels of node and wasm run to their end
 * before they return, so their times are true there; webgpu's are only those of being queued.
 */
import {
  getBackend,
  getKernelsForBackend,
  memory,
  registerKernel,
  unregisterKernel,
} from "@tensorflow/tfjs-core";
import { toText } from "../../src/report/table.js";
import { loadJob } from "./job.js";

interface Entry {
  calls: number;
  ms: number;
}

const args = process.argv.slice(2).filter((arg) => arg !== "--shapes");
/** Whether each kernel is listed once for every set of input shapes. */
const byShape = process.argv.includes("--shapes");
const stepsArgument = /^\d+$/.test(args.at(-1) ?? "") && args.pop();
const steps = Number(stepsArgument || 5);
const { step } = await loadJob(args);
await step();

const entries = new Map<string, Entry>();
/** Time spent in kernels that a running kernel called, one number a nesting level. */
const inner: number[] = [];
for (const kernel of getKernelsForBackend(getBackend())) {
  const entryOf = (key: string): Entry => {
    const found = entries.get(key) ?? { calls: 0, ms: 0 };
    entries.set(key, found);
    return found;
  };
  unregisterKernel(kernel.kernelName, kernel.backendName);
  registerKernel({
    ...kernel,
    kernelFunc(call) {
      inner.push(0);
      const start = performance.now();
      const out = kernel.kernelFunc(call);
      const ms = performance.now() - start;
      const own = ms - (inner.pop() ?? 0);
      if (inner.length) inner.push(ms + (inner.pop() ?? 0));
      const attributes = call.attrs as Record<string, boolean> | undefined;
      const shapes = Object.entries(call.inputs as Record<string, { shape: number[] }>).map(
        ([name, { shape }]) =>
          `${attributes?.[`transpose${name.toUpperCase()}`] ? "ᵀ" : ""}${shape.join("×")}`,
      );
      const entry = entryOf(byShape ? `${kernel.kernelName} ${shapes.join(" · ")}` : kernel.kernelName);
      entry.calls++;
      entry.ms += own;
      return out;
    },
  });
}
const start = performance.now();
for (let i = 0; i < steps; i++) await step();
const total = (performance.now() - start) / steps;
const used = [...entries].filter(([, { calls }]) => calls > 0).sort(([, a], [, b]) => b.ms - a.ms);
const inKernels = used.reduce((sum, [, { ms }]) => sum + ms, 0) / steps;
const row = (name: string, calls: number, ms: number) => [
  name,
  calls ? (calls / steps).toFixed(0) : "",
  ms.toFixed(1),
  `${((100 * ms) / total).toFixed(1)} %`,
];
console.log(
  toText({
    head: ["kernel", "calls", "ms a step", "share"],
    body: [
      ...used.map(([name, { calls, ms }]) => row(name, calls, ms / steps)),
      row("outside kernels", 0, total - inKernels),
      row(
        "step",
        used.reduce((n, [, { calls }]) => n + calls, 0),
        total,
      ),
    ],
  }),
);
console.log(
  `tensors held: ${memory().numTensors}, peak memory of the process: ` +
    `${((process.resourceUsage().maxRSS * 1024) / 1e9).toFixed(2)} GB`,
);
process.exit(0);
