import { createRequire } from "node:module";
import { dirname } from "node:path";
import { freeMemory, type Engine, type Loaded } from "./engine.js";

async function loadWasm(wanted?: number): Promise<Loaded> {
  const { setThreadsCount, setWasmPaths } = await import("@tensorflow/tfjs-backend-wasm");
  const { registerWasmKernels } = await import("./wasm-kernels.js");
  const { startWasmThreads } = await import("./wasm-threads.js");
  const main = createRequire(import.meta.url).resolve("@tensorflow/tfjs-backend-wasm");
  setWasmPaths(`${dirname(main)}/`);
  const threads = await startWasmThreads(setThreadsCount, wanted);
  registerWasmKernels();
  return { backend: "wasm", text: threads === 1 ? "1 thread" : `${threads} threads` };
}

export const wasm: Engine<"wasm"> = {
  name: "wasm",
  what: "WebAssembly with SIMD and threads",
  needs: "nothing more",
  mend: "npm install",
  ownHeap: true,
  deviceMemory: () => ({
    bytes: Math.min(3.6 * 2 ** 30, 0.8 * freeMemory()),
    from: "the 4 GiB heap of WebAssembly",
    shared: true,
  }),
  load: loadWasm,
};
