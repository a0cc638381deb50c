import { expect, test } from "vitest";
import { guardMemory, packedBytes, reserveMemory, type WasmMemory } from "../../src/backend/wasm-memory.js";

/** A memory of 4.29 GB of which so much is taken: it gives out addresses from there on, and 0 where it is full. */
function memoryOf(taken: number): WasmMemory & { readonly asked: number[] } {
  const asked: number[] = [];
  let end = taken;
  const wasm = {
    asked,
    HEAPU8: { length: taken },
    ["_free"]: () => {},
    ["_malloc"](bytes: number): number {
      // As Emscripten has it: the first call puts another function in its place.
      wasm["_malloc"] = (size) => {
        asked.push(size);
        if (end + size > 65_535 * 65_536) return 0;
        end += size;
        return end - size;
      };
      return wasm["_malloc"](bytes);
    },
  };
  return wasm;
}

test("what a full memory has no room for is refused, not written over what lies at address 0", () => {
  const wasm = memoryOf(4e9);
  guardMemory(wasm);
  expect(wasm["_malloc"](2e8)).toBeGreaterThan(0);
  expect(() => wasm["_malloc"](2e8)).toThrow(/memory of 4.3 GB is full, and 200 MB more are needed/);
  expect(wasm["_malloc"](1e6)).toBeGreaterThan(0);
});

test("XNNPACK packs a bias a column, and whole groups of columns", () => {
  // A merge of two experts, and an inner product with a gradient: 12 and 32 bytes an entry.
  expect(packedBytes(2, 1e8)).toBe(12 * 1e8 + 2 ** 20);
  expect(packedBytes(1e6, 1)).toBe(32 * (1e6 + 1) + 2 ** 20);
});

test("a kernel's own memory is asked for where the memory can hardly grow", () => {
  const roomy = memoryOf(1e9);
  guardMemory(roomy);
  roomy.asked.length = 0;
  reserveMemory(roomy, 2e8);
  expect(roomy.asked).toEqual([]);
  const full = memoryOf(4.2e9);
  guardMemory(full);
  expect(() => reserveMemory(full, 2e8)).toThrow(/--residency disk/);
  expect(() => reserveMemory(full, 9e7)).not.toThrow();
});
