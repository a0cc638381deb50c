import { createRequire } from "node:module";
import { dirname } from "node:path";
import { findBackend } from "@tensorflow/tfjs-core";
import { loadNative } from "./native.js";
import { loadWebgpu } from "./webgpu.js";
import { startThreads } from "./wasm-threads.js";
import { cpuMemory, registerUnpackKernels } from "./packed.js";

/** The engines a user can ask for, in the order `auto` tries them: fastest first. */
export const engineNames = ["node-gpu", "node", "webgpu", "wasm", "cpu"] as const;
export type EngineName = (typeof engineNames)[number];

/** What it takes to run an engine here. `load` returns tfjs's own name for it; `chosen` says that the user named the engine. */
export interface Engine {
  readonly name: EngineName;
  readonly what: string;
  /** The one line that makes it available. */
  readonly mend: string;
  load(chosen: boolean): Promise<string>;
}

async function loadWasm(): Promise<string> {
  const { setThreadsCount, setWasmPaths } = await import("@tensorflow/tfjs-backend-wasm");
  const { registerWasmKernels } = await import("./wasm-kernels.js");
  const main = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  setWasmPaths(`${dirname(main)}/`);
  await startThreads(setThreadsCount);
  registerWasmKernels();
  return "wasm";
}

export const engines: readonly Engine[] = [
  {
    name: "node-gpu", what: "TensorFlow on an NVIDIA card (CUDA)",
    mend: "train-merge setup native --gpu",
    load: () => loadNative(["@tensorflow/tfjs-node-gpu", "@tensorflow/tfjs-node"], "gpu"),
  },
  {
    name: "node", what: "TensorFlow on the CPU",
    mend: "train-merge setup native",
    load: () => loadNative(["@tensorflow/tfjs-node"], "cpu"),
  },
  {
    name: "webgpu", what: "a card through WebGPU (Vulkan, Metal, D3D12)",
    mend: "npm install webgpu@0.6.2 @tensorflow/tfjs-backend-webgpu@4.22.0, and a driver for the card",
    load: loadWebgpu,
  },
  {
    name: "wasm", what: "WebAssembly with SIMD and threads",
    mend: "npm install",
    load: loadWasm,
  },
  {
    name: "cpu", what: "plain JavaScript: slow, for checking",
    mend: "npm install",
    load: async () => {
      await import("@tensorflow/tfjs-backend-cpu");
      // Its first op would print an advertisement for another engine; doctor says it better.
      Object.assign(findBackend("cpu") ?? {}, { firstUse: false });
      registerUnpackKernels("cpu", cpuMemory);
      return "cpu";
    },
  },
];
