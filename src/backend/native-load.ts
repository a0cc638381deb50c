import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import util from "node:util";
import { findBackend } from "@tensorflow/tfjs-core";
import { addonPackage, nativeFolder } from "./cache.js";
import { cudaFacts, cudaProblem } from "./cuda.js";
import type { Loaded } from "./engine.js";
import { findPackage } from "./find-package.js";
import { registerNativeKernels } from "./native-kernels.js";

/** Whether TensorFlow computes on a card; it was loaded. */
export function usesCard(): boolean {
  const backend: object = findBackend("tensorflow");
  return "isUsingGpuDevice" in backend && backend.isUsingGpuDevice === true;
}

/** Gives Node back the two functions that tfjs-node 4.22 calls and Node 23 took away. */
function bringBackOldUtil(): void {
  const old = { isNullOrUndefined: (x: unknown) => x === null || x === undefined, isArray: Array.isArray };
  for (const [name, value] of Object.entries(old))
    if (!(name in util)) Object.assign(util, { [name]: value });
}

/** tfjs-node has a tfjs-core of its own, which warns that the platform is set already; both share one engine. */
async function importQuietly(path: string): Promise<void> {
  const { warn } = console;
  console.warn = () => {};
  try {
    await import(pathToFileURL(path).href);
  } finally {
    console.warn = warn;
  }
}

/** The tfjs-node to load, and what is said of it. @throws Error where there is none */
function findNative(packages: readonly string[], folder: string): { path: string; text: string } {
  const built = join(addonPackage(folder), "dist", "index.js");
  if (existsSync(built))
    return { path: built, text: readFileSync(join(folder, "tensorflow.txt"), "utf8").trim() };
  const path = packages.map(findPackage).find((found) => found !== undefined);
  if (path === undefined) throw new Error("not installed");
  return { path, text: "TensorFlow as @tensorflow/tfjs-node brings it" };
}

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
  bringBackOldUtil();
  const { path, text } = findNative(packages, folder);
  await importQuietly(path);
  registerNativeKernels();
  if (device === "gpu" && !usesCard()) throw cudaProblem(cudaFacts(folder));
  return { backend: "tensorflow", text };
}
