import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { env, ready, setBackend } from "@tensorflow/tfjs-core";

/** Patches a built-in module's property while `work` runs. */
async function during<T>(
  module: Record<string, unknown>,
  property: string,
  value: unknown,
  work: () => Promise<T>,
): Promise<T> {
  const before = module[property];
  module[property] = value;
  try {
    return await work();
  } finally {
    module[property] = before;
  }
}

/**
 * Starts the WASM back end with a thread a core. tfjs switches threads off in Node (its issue 3830), because the
 * threaded build starts its workers from blob addresses, which Node's workers cannot load. Here the workers get the
 * same two scripts from the package's own files instead.
 *
 * TRAIN_MERGE_THREADS sets their number.
 * @returns the number of threads; 1 where nothing was done
 */
export async function startThreads(
  setThreadsCount: (n: number) => void,
  wanted = availableParallelism(),
): Promise<number> {
  const threads = Number(process.env["TRAIN_MERGE_THREADS"]) || wanted;
  if (threads < 2) return 1;
  const require = createRequire(import.meta.url);
  const build = "@tensorflow/tfjs-backend-wasm/wasm-out/tfjs-backend-wasm-threaded-simd";
  const { wasmWorkerContents } = require(`${build}.worker.js`) as { wasmWorkerContents: string };
  const mainScript = require.resolve(`${build}.js`);
  const workerThreads = require("node:worker_threads") as typeof import("node:worker_threads") &
    Record<string, unknown>;
  const os = require("node:os") as typeof import("node:os") & Record<string, unknown>;

  class Worker extends workerThreads.Worker {
    constructor() {
      // A line break inside one of its strings has lost its escape (tfjs mends it in the same way).
      super(wasmWorkerContents.replaceAll("\n", "\\n"), { eval: true });
    }
    override postMessage(message: unknown): void {
      const load = message as { cmd?: string; urlOrBlob?: unknown };
      super.postMessage(load.cmd === "load" ? { ...load, urlOrBlob: mainScript } : message);
    }
    /** A running thread would keep the process from ending. */
    override ref(): void {}
  }

  env().set("WASM_HAS_MULTITHREAD_SUPPORT", true);
  setThreadsCount(threads);
  // tfjs takes half of the cores at most.
  const cores = [...os.cpus(), ...os.cpus()];
  await during(workerThreads, "Worker", Worker, () =>
    during(
      os,
      "cpus",
      () => cores,
      async () => {
        await setBackend("wasm");
        await ready();
      },
    ),
  );
  return threads;
}
