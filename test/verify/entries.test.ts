import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { writeWeights } from "../../src/checkpoint/write.js";
import { checkWritten, type WrittenTensor } from "../../src/verify/entries.js";
import { temporaryFolder } from "../helpers.js";

let scratch: string;
beforeAll(async () => {
  scratch = await temporaryFolder();
});

const values = { a: Float32Array.of(1, 2, 3, 4), b: Float32Array.of(-Infinity, 0.5) };
const source = (name: "a" | "b") => ({
  name,
  dtype: "F32" as const,
  shape: [values[name].length],
  bytes: async () => new Uint8Array(values[name].buffer),
});
/** Half of twice the numbers. */
const tensor = (name: "a" | "b"): WrittenTensor => ({
  ...source(name),
  terms: [0.5, 0.5].map((factor) => ({
    factor,
    read: async ([from, to]) => values[name].slice(from, to),
  })),
});

async function written(): Promise<string> {
  await writeWeights(scratch, [source("a"), source("b")], Infinity);
  return join(scratch, "model.safetensors");
}

test("what is as it must be is let through, with what is infinite in all models", async () => {
  await expect(checkWritten([await written()], [tensor("a"), tensor("b")], 0)).resolves.toBeUndefined();
});

test.each([
  ["a type", { ...tensor("a"), dtype: "F16" as const }, /"a" is F32 \[4\], and must be F16 \[4\]/],
  ["a shape", { ...tensor("a"), shape: [2, 2] }, /"a" is F32 \[4\], and must be F32 \[2, 2\]/],
  ["a name", { ...tensor("a"), name: "c" }, /"c" is not there/],
])("%s that is another is refused", async (_, one, message) => {
  await expect(checkWritten([await written()], [one, tensor("b")], 0)).rejects.toThrow(message);
});

test("a tensor that nobody asked for is refused", async () => {
  await expect(checkWritten([await written()], [tensor("a")], 0)).rejects.toThrow(/nobody wrote/);
});

test("a number that is another is refused", async () => {
  const path = await written();
  const bytes = await readFile(path);
  // The lowest bit of the exponent of the third of six numbers.
  bytes[bytes.length - 14]! ^= 0x80;
  await writeFile(path, bytes);
  await expect(checkWritten([path], [tensor("a"), tensor("b")], 0)).rejects.toThrow(
    /"a" holds [\d.]+ at entry 2, and 3 is right: what was written is not what the models give/,
  );
});

test("the sample ends with its time: a twentieth of the merge's, at least 30 ms", async () => {
  const path = await written();
  const slow: WrittenTensor = {
    ...source("a"),
    terms: [
      {
        factor: 1,
        async read([from, to]) {
          await new Promise((resolve) => setTimeout(resolve, 10));
          return values.a.slice(from, to);
        },
      },
    ],
  };
  const wrong: WrittenTensor = {
    ...source("b"),
    terms: [{ factor: 1, read: async () => Float32Array.of(7) }],
  };
  // Four reads of 10 ms: 30 ms are over, a tenth of a second is not.
  const after = (milliseconds: number) =>
    checkWritten([path], [slow, wrong], performance.now() - milliseconds);
  await expect(after(0)).resolves.toBeUndefined();
  await expect(after(20_000)).rejects.toThrow(/"b" holds .* and 7 is right/);
});
