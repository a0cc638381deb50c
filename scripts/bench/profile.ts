/**
 * Where a step's time goes: the exclusive time and number of calls of every kernel, and what is left for JavaScript.
 *
 *   node dist/scripts/bench/profile.js ENGINE BASE BATCHES.json TASK=EXPERT… [STEPS]
 *
 * BATCHES.json is what scripts/bench/step.js --keep-batches FILE writes. Kernels of node and wasm run to their end
 * before they return, so their times are true there; webgpu's are only those of being queued.
 */
import { getBackend, getKernelsForBackend, memory, registerKernel, unregisterKernel } from "@tensorflow/tfjs-core";
import { toText } from "../../src/report/table.js";
import { loadJob } from "./job.js";

interface Entry { calls: number; ms: number; largest: number }

const args = process.argv.slice(2);
const steps = /^\d+$/.test(args.at(-1)!) ? Number(args.pop()) : 5;
const { step } = await loadJob(args as unknown as Parameters<typeof loadJob>[0]);
await step();

const entries = new Map<string, Entry>();
/** Time spent in kernels that a running kernel called, one number a nesting level. */
const inner: number[] = [];
for (const kernel of getKernelsForBackend(getBackend())) {
  const entry: Entry = { calls: 0, ms: 0, largest: 0 };
  entries.set(kernel.kernelName, entry);
  unregisterKernel(kernel.kernelName, kernel.backendName);
  registerKernel({
    ...kernel,
    kernelFunc(call) {
      inner.push(0);
      const start = performance.now();
      const out = kernel.kernelFunc(call);
      const ms = performance.now() - start;
      const own = ms - inner.pop()!;
      if (inner.length) inner[inner.length - 1]! += ms;
      entry.calls++;
      entry.ms += own;
      entry.largest = Math.max(entry.largest, own);
      return out;
    },
  });
}
const start = performance.now();
for (let i = 0; i < steps; i++) await step();
const total = (performance.now() - start) / steps;
const used = [...entries].filter(([, { calls }]) => calls > 0).sort(([, a], [, b]) => b.ms - a.ms);
const inKernels = used.reduce((sum, [, { ms }]) => sum + ms, 0) / steps;
const row = (name: string, calls: number, ms: number) => [name, calls ? (calls / steps).toFixed(0) : "", ms.toFixed(1), `${((100 * ms) / total).toFixed(1)} %`];
console.log(toText({
  head: ["kernel", "calls", "ms a step", "share"],
  body: [...used.map(([name, { calls, ms }]) => row(name, calls, ms / steps)), row("outside kernels", 0, total - inKernels), row("step", used.reduce((n, [, { calls }]) => n + calls, 0), total)],
}));
console.log(`tensors held: ${memory().numTensors}, peak memory of the process: ${((process.resourceUsage().maxRSS * 1024) / 1e9).toFixed(2)} GB`);
process.exit(0);
