import { UserError } from "../errors.js";

/** The parts of the WASM module that hand out its memory. */
export interface WasmMemory {
  readonly HEAPU8: { readonly length: number };
  ["_malloc"](bytes: number): number;
  ["_free"](address: number): void;
}

/** What WebAssembly's memory may grow to: 65,535 pages of 64 KiB. */
const mostBytes = 65_535 * 65_536;

const full = (bytes: number): UserError =>
  new UserError(
    `WebAssembly's memory of ${(mostBytes / 1e9).toFixed(1)} GB is full, and ${Math.ceil(bytes / 1e6)} MB more are ` +
      "needed: --residency disk with --blocks on, or a smaller --micro-batch or --batch-size takes less; the engines " +
      "node and webgpu have more (train-merge doctor)",
  );

/**
 * Refuses what the memory has no room for. tfjs takes the address 0 that a full memory gives for a place, and writes
 * over what lies there.
 */
export function guardMemory(wasm: WasmMemory): void {
  // Its first call puts another function in its own place.
  wasm["_free"](wasm["_malloc"](1));
  const malloc = wasm["_malloc"];
  wasm["_malloc"] = (bytes) => {
    const address = malloc(bytes);
    if (address === 0 && bytes > 0) throw full(bytes);
    return address;
  };
}

/** Columns that XNNPACK packs side by side. */
const packedColumns = 8;

/** What XNNPACK packs the second matrix of a product into: a bias and `inner` entries a column, in whole groups. */
export const packedBytes = (inner: number, columns: number): number =>
  4 * (inner + 1) * packedColumns * Math.ceil(columns / packedColumns) + 2 ** 20;

/**
 * Sees to it that a kernel finds so many bytes for itself. XNNPACK, which finds none, leaves its result as it was and
 * only says so on the terminal. Asked only where the memory cannot grow by as much any more.
 * @throws UserError where there are not so many
 */
export function reserveMemory(wasm: WasmMemory, bytes: number): void {
  if (wasm.HEAPU8.length + bytes < mostBytes) return;
  wasm["_free"](wasm["_malloc"](bytes));
}
