import { createRequire } from "node:module";
import os from "node:os";
import workerThreads from "node:worker_threads";
import { env, ready, setBackend } from "@tensorflow/tfjs-core";
import { z } from "zod";

/** Patches a built-in module's property while `work` runs. */
async function during<M extends object, P extends keyof M>(
  module: M,
  property: P,
  value: M[P],
  work: () => Promise<void>,
): Promise<void> {
  const before = module[property];
  module[property] = value;
  try {
    await work();
  } finally {
    module[property] = before;
  }
}

/** The message with which the threaded build has a worker load it. */
const loadMessage = z.looseObject({ cmd: z.literal("load") });

/**
 * Workers as the threaded build wants them, which run its own two scripts from the package's files. tfjs starts them
 * from blob addresses, which Node's workers cannot load.
 */
function workersOfBuild(): typeof workerThreads.Worker {
  const require = createRequire(import.meta.url);
  const build = "@tensorflow/tfjs-backend-wasm/wasm-out/tfjs-backend-wasm-threaded-simd";
  const { wasmWorkerContents } = z
    .object({ wasmWorkerContents: z.string() })
    .parse(require(`${build}.worker.js`));
  const mainScript = require.resolve(`${build}.js`);
  return class WasmWorker extends workerThreads.Worker {
    constructor() {
      // A line break inside one of its strings has lost its escape (tfjs mends it in the same way).
      super(wasmWorkerContents.replaceAll("\n", "\\n"), { eval: true });
    }
    override postMessage(message: unknown): void {
      const load = loadMessage.safeParse(message);
      super.postMessage(load.success ? { ...load.data, urlOrBlob: mainScript } : message);
    }
    /** A running thread would keep the process from ending. */
    override ref(): void {}
  };
}

async function startWasm(): Promise<void> {
  await setBackend("wasm");
  await ready();
}

/**
 * Starts the WASM back end with a thread a core. tfjs switches threads off in Node (its issue 3830), because its
 * workers do not start there; here they do.
 *
 * TRAIN_MERGE_THREADS sets their number.
 * @returns the number of threads
 */
export async function startWasmThreads(
  setThreadsCount: (n: number) => void,
  wanted = os.availableParallelism(),
): Promise<number> {
  const threads = Number(process.env["TRAIN_MERGE_THREADS"]) || wanted;
  if (threads < 2) {
    await startWasm();
    return 1;
  }
  env().set("WASM_HAS_MULTITHREAD_SUPPORT", true);
  setThreadsCount(threads);
  // tfjs takes half of the cores at most.
  const cores = [...os.cpus(), ...os.cpus()];
  await during(workerThreads, "Worker", workersOfBuild(), () => during(os, "cpus", () => cores, startWasm));
  return threads;
}
