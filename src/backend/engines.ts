import { createRequire } from "node:module";
import { dirname } from "node:path";
import { findBackend } from "@tensorflow/tfjs-core";
import type { EngineName } from "./names.js";
import { loadNative } from "./native.js";
import { cpuMemory, registerUnpackKernels } from "./packed.js";
import { EngineProblem, type Loaded } from "./problem.js";
import { startThreads } from "./wasm-threads.js";
import { loadWebgpu } from "./webgpu.js";

export { EngineProblem, type Loaded };

export { engineNames, type EngineName } from "./names.js";

/** What it takes to run an engine here. */
export interface Engine {
  readonly name: EngineName;
  readonly what: string;
  /** What must be there, for people. */
  readonly needs: string;
  /** Which cards it was run on, by date, and what stands untested; for those that need one. */
  readonly tried?: string;
  /** The one line that makes it available, where the problem has none of its own. */
  readonly mend: string;
  /** @throws Error saying in a line why it cannot run, EngineProblem where it knows what mends that */
  load(threads?: number): Promise<Loaded>;
}

async function loadWasm(wanted?: number): Promise<Loaded> {
  const { setThreadsCount, setWasmPaths } = await import("@tensorflow/tfjs-backend-wasm");
  const { registerWasmKernels } = await import("./wasm-kernels.js");
  const main = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  setWasmPaths(`${dirname(main)}/`);
  const threads = await startThreads(setThreadsCount, wanted);
  registerWasmKernels();
  return { backend: "wasm", text: `${threads} thread${threads === 1 ? "" : "s"}` };
}

async function loadCpu(): Promise<Loaded> {
  await import("@tensorflow/tfjs-backend-cpu");
  // Its first op would print an advertisement for another engine; doctor says it better.
  Object.assign(findBackend("cpu") ?? {}, { firstUse: false });
  registerUnpackKernels("cpu", cpuMemory);
  return { backend: "cpu", text: "one thread" };
}

export const engines: readonly Engine[] = [
  {
    name: "node-gpu",
    what: "TensorFlow on an NVIDIA card",
    needs: "an NVIDIA card with its driver, and TensorFlow with CUDA (pip), a C++ compiler to set it up",
    tried: "on no card yet",
    mend: "train-merge setup native --gpu",
    load: () => loadNative(["@tensorflow/tfjs-node-gpu", "@tensorflow/tfjs-node"], "gpu"),
  },
  {
    name: "webgpu",
    what: "a card through Vulkan, Metal or D3D12",
    needs: "the packages webgpu and @tensorflow/tfjs-backend-webgpu, and a card with its driver",
    tried:
      "on SwiftShader, which emulates a card (2026-11-26: the conformance suite, the step, a " +
      "binding of 128 MiB); on no real card yet",
    mend: "npm install webgpu@0.6.2 @tensorflow/tfjs-backend-webgpu@4.22.0",
    load: loadWebgpu,
  },
  {
    name: "node",
    what: "TensorFlow on the CPU",
    needs: "TensorFlow (pip; 2.21 was tried), and a C++ compiler to set it up",
    mend: "train-merge setup native",
    load: () => loadNative(["@tensorflow/tfjs-node"], "cpu"),
  },
  {
    name: "wasm",
    what: "WebAssembly with SIMD and threads",
    needs: "nothing more",
    mend: "npm install",
    load: loadWasm,
  },
  {
    name: "cpu",
    what: "plain JavaScript: slow, for checking",
    needs: "nothing more",
    mend: "npm install",
    load: loadCpu,
  },
];
