import {
  memoryOfHost,
  type Engine,
  freeMemory,
  type Loaded,
  guessedMemory,
  type DeviceMemory,
  noCard,
  linkerFinds,
  linkerFolders,
  linkerList,
} from "./engine.js";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { execFileSync } from "node:child_process";

export const cpu: Engine<"cpu"> = {
  name: "cpu",
  what: "plain JavaScript: slow, for checking",
  needs: "nothing more",
  mend: "npm install",
  ownHeap: false,
  deviceMemory: memoryOfHost,
  async load() {
    await import("@tensorflow/tfjs-backend-cpu");
    const { prepareCpu } = await import("./cpu-kernels.js");
    prepareCpu();
    return { backend: "cpu", text: "one thread" };
  },
};

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

/** Whether there is surely no Vulkan: Dawn, asked all the same, would print a trace of its own at every command. */
const lacksVulkan = (): boolean =>
  process.platform === "linux" && !linkerFinds("libvulkan.so.1", linkerList, linkerFolders());

/** What nvidia-smi says is free on the first card, in MiB; NaN or 0 where it says nothing. */
function freeOnCard(): number {
  try {
    const printed = execFileSync("nvidia-smi", ["--query-gpu=memory.free", "--format=csv,noheader,nounits"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    const [first] = printed.split("\n");
    return Number(first);
  } catch {
    return 0;
  }
}

/** The memory of an NVIDIA card, by its driver's own tool; a guess where there is none. */
function memoryOfCard(backend: string, isNvidia = true): DeviceMemory {
  const mebibytes = isNvidia ? freeOnCard() : 0;
  if (!(mebibytes > 0)) return guessedMemory(backend);
  return { bytes: 0.9 * mebibytes * 2 ** 20, from: "nine tenths of the card's free memory", shared: false };
}

/** Whether the card that WebGPU runs on is NVIDIA's: another one's memory is not what nvidia-smi tells. */
let isNvidiaBehindWebgpu = false;

export const webgpu: Engine<"webgpu"> = {
  name: "webgpu",
  what: "a card through Vulkan, Metal or D3D12",
  needs: "the packages webgpu and @tensorflow/tfjs-backend-webgpu, and a card with its driver",
  tried:
    "on an NVIDIA H200 through Vulkan (2026-11-27: the conformance suite, a binding of 128 MiB, the step, " +
    "the merge op); on SwiftShader, which emulates a card: the suite, a binding of 128 MiB",
  mend: "npm install webgpu@0.6.2 @tensorflow/tfjs-backend-webgpu@4.22.0",
  ownHeap: false,
  deviceMemory: () => memoryOfCard("webgpu", isNvidiaBehindWebgpu),
  async load() {
    if (lacksVulkan()) throw noCard();
    const { loadWebgpu } = await import("./webgpu-load.js");
    const { vendor, ...loaded } = await loadWebgpu();
    isNvidiaBehindWebgpu = vendor === "nvidia" && !loaded.emulated;
    return loaded;
  },
};

const backend = "tensorflow";

const load = async (packages: readonly string[], device: "gpu" | "cpu") =>
  (await import("./native-load.js")).loadNative(packages, device);

export const nodeGpu: Engine<"node-gpu"> = {
  name: "node-gpu",
  what: "TensorFlow on an NVIDIA card",
  needs: "an NVIDIA card with its driver, and TensorFlow with CUDA (pip), a C++ compiler to set it up",
  tried: "on no card yet",
  mend: "train-merge setup native --gpu",
  ownHeap: false,
  deviceMemory: () => memoryOfCard(backend),
  load: () => load(["@tensorflow/tfjs-node-gpu", "@tensorflow/tfjs-node"], "gpu"),
};

export const node: Engine<"node"> = {
  name: "node",
  what: "TensorFlow on the CPU",
  needs: "TensorFlow (pip; 2.21 was tried), and a C++ compiler to set it up",
  mend: "train-merge setup native",
  ownHeap: false,
  deviceMemory: memoryOfHost,
  load: () => load(["@tensorflow/tfjs-node"], "cpu"),
};

/** The engines a user can ask for, in the order `auto` tries them: fastest first. */
const fastestFirst = [nodeGpu, webgpu, node, wasm, cpu] as const;

export type EngineName = (typeof fastestFirst)[number]["name"];

export const engines: readonly Engine<EngineName>[] = fastestFirst;
export const engineNames: readonly EngineName[] = fastestFirst.map(({ name }) => name);

/** @throws Error where there is no engine of that name */
export function engineNamed(name: string): Engine<EngineName> {
  const found = engines.find((engine) => engine.name === name);
  if (!found) throw new Error(`there is no engine "${name}"`);
  return found;
}
