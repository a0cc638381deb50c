import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { findBackend } from "@tensorflow/tfjs-core";

/** The engines a user can ask for, in the order `auto` tries them: fastest first. */
export const engineNames = ["node-gpu", "node", "webgpu", "wasm", "cpu"] as const;
export type EngineName = (typeof engineNames)[number];

/** What it takes to run an engine here. `load` returns tfjs's own name for it. */
export interface Engine {
  readonly name: EngineName;
  readonly what: string;
  /** The one line that makes it available. */
  readonly mend: string;
  load(): Promise<string>;
}

/** Finds a package beside train-merge or in the folder the user stands in; undefined where neither has it. */
function locate(name: string): string | undefined {
  for (const from of [import.meta.url, pathToFileURL(join(process.cwd(), "package.json")).href]) {
    try {
      return createRequire(from).resolve(name);
    } catch {
      // not installed there
    }
  }
  return undefined;
}

async function importOptional(name: string): Promise<void> {
  const path = locate(name);
  if (path === undefined) throw new Error("not installed");
  await import(pathToFileURL(path).href);
}

async function loadNative(name: string): Promise<string> {
  // TensorFlow prints its start-up log to stderr unless told not to before it loads.
  process.env["TF_CPP_MIN_LOG_LEVEL"] ??= "2";
  process.env["TF_ENABLE_ONEDNN_OPTS"] ??= "1";
  await importOptional(name);
  return "tensorflow";
}

async function loadWasm(): Promise<string> {
  const { setWasmPaths } = await import("@tensorflow/tfjs-backend-wasm");
  const { registerWasmKernels } = await import("./wasm-kernels.js");
  const main = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  setWasmPaths(`${dirname(main)}/`);
  registerWasmKernels();
  return "wasm";
}

export const engines: readonly Engine[] = [
  {
    name: "node-gpu", what: "TensorFlow on an NVIDIA card (CUDA)",
    mend: "npm install @tensorflow/tfjs-node-gpu",
    load: () => loadNative("@tensorflow/tfjs-node-gpu"),
  },
  {
    name: "node", what: "TensorFlow on the CPU",
    mend: "npm install @tensorflow/tfjs-node",
    load: () => loadNative("@tensorflow/tfjs-node"),
  },
  {
    name: "webgpu", what: "any card through WebGPU",
    mend: "use node or wasm meanwhile",
    load: () => Promise.reject(new Error("not in this version yet")),
  },
  {
    name: "wasm", what: "WebAssembly with SIMD, one thread",
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
      return "cpu";
    },
  },
];
