import { engine } from "@tensorflow/tfjs-core";

/**
 * Bytes that one tensor may have on the running engine. A WebGPU adapter binds so much to a program at
 * once (128 MiB is all that WebGPU promises; backend/webgpu.ts says what the adapter has); the other
 * engines have no such limit.
 */
export function tensorLimit(): number {
  const backend: object | null = engine().backend;
  if (backend === null || !("tensorLimit" in backend)) return Infinity;
  const { tensorLimit: limit } = backend;
  if (typeof limit !== "number") return Infinity;
  return limit;
}

/**
 * Rows of a tensor that are held together on the device: as many as let the stacked task vectors of all
 * its experts, as float32, stay within the engine's limit.
 */
export function rowsTogether({
  rows,
  width,
  experts,
}: {
  rows: number;
  width: number;
  experts: readonly number[];
}): number {
  return Math.max(1, Math.min(rows, Math.floor(tensorLimit() / (4 * width * Math.max(1, experts.length)))));
}
