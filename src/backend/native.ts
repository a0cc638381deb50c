import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import util from "node:util";
import { findBackend } from "@tensorflow/tfjs-core";
import { nativeFolder } from "./cache.js";
import { cudaFacts, cudaProblem } from "./cuda.js";
import { registerNativeKernels } from "./native-kernels.js";
import type { Loaded } from "./problem.js";
import { locate } from "./locate.js";

/** The part of tfjs-node's back end that we use beside its kernels. */
export interface NativeBackend {
  readonly isUsingGpuDevice: boolean;
}

/** The tfjs-node inside a folder that `setup native` filled. */
export const addonPackage = (folder: string): string =>
  join(folder, "node_modules", "@tensorflow", "tfjs-node");

/**
 * Loads tfjs-node and makes it a back end named "tensorflow": the one in `folder` (default: what `setup native`
 * built), or else one of `packages` that is installed.
 * @throws Error where there is none, or where a card is asked for and TensorFlow finds none
 */
export async function loadNative(
  packages: readonly string[],
  device: "gpu" | "cpu" | "any",
  folder = nativeFolder(),
): Promise<Loaded> {
  // Read by TensorFlow when it loads: its start-up log goes to stderr unless told not to, and it takes all of a
  // card's memory unless told to grow.
  process.env["TF_CPP_MIN_LOG_LEVEL"] ??= "2";
  process.env["TF_FORCE_GPU_ALLOW_GROWTH"] ??= "true";
  if (device === "cpu") process.env["CUDA_VISIBLE_DEVICES"] ??= "-1";
  // tfjs-node 4.22 calls two functions that Node 23 took away.
  const old = util as unknown as Record<string, unknown>;
  old["isNullOrUndefined"] ??= (x: unknown) => x === null || x === undefined;
  old["isArray"] ??= Array.isArray;
  const built = join(addonPackage(folder), "dist", "index.js");
  const path = existsSync(built) ? built : packages.map(locate).find((found) => found !== undefined);
  if (path === undefined) throw new Error("not installed");
  // It has a tfjs-core of its own, which warns that the platform is set already; the two share one
  // engine all the same.
  const { warn } = console;
  console.warn = () => {};
  try {
    await import(pathToFileURL(path).href);
  } finally {
    console.warn = warn;
  }
  registerNativeKernels();
  const { isUsingGpuDevice } = findBackend("tensorflow") as unknown as NativeBackend;
  if (device === "gpu" && !isUsingGpuDevice) throw cudaProblem(cudaFacts(folder));
  const text =
    path === built
      ? readFileSync(join(folder, "tensorflow.txt"), "utf8").trim()
      : "TensorFlow as @tensorflow/tfjs-node brings it";
  return { backend: "tensorflow", text };
}
