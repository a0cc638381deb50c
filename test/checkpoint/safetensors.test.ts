import { mkdir, open, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openCheckpoint } from "../../src/checkpoint/folder.js";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { planShards, writeSafetensors, writeWeights, type TensorSource } from "../../src/checkpoint/write.js";
import { temporaryFolder } from "../helpers.js";

const folder = await temporaryFolder();
const source = (name: string, values: number[], shape = [values.length]): TensorSource => ({
  name,
  shape,
  dtype: "F32",
  bytes: async () => new Uint8Array(new Float32Array(values).buffer),
});

/** A file with any header text and any data behind it. */
async function raw(name: string, header: string | object, data = 0, declared?: bigint): Promise<string> {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const out = new Uint8Array(8 + json.length + data);
  new DataView(out.buffer).setBigUint64(0, declared ?? BigInt(json.length), true);
  out.set(json, 8);
  await writeFile(join(folder, name), out);
  return join(folder, name);
}
const f32 = (shape: number[], ...data_offsets: number[]) => ({ dtype: "F32", shape, data_offsets });

test("what is written is read back, with names, shapes and metadata", async () => {
  const path = join(folder, "a.safetensors");
  await writeSafetensors(
    path,
    [source("x", [1, 2, 3, 4], [2, 2]), source("empty", [], [0, 3]), source("scalar", [7], [])],
    { made: "here" },
  );
  const file = await openSafetensors(path);
  expect([...file.entries.keys()]).toEqual(["x", "empty", "scalar"]);
  expect(file.metadata).toEqual({ format: "pt", made: "here" });
  const x = await file.read("x");
  expect([...new Float32Array(x.bytes.slice().buffer)]).toEqual([1, 2, 3, 4]);
  expect((await file.read("empty")).bytes.length).toBe(0);
  await file.close();
});

test.each<[string, string | object, number, bigint | undefined, RegExp]>([
  ["header of 2^60", {}, 0, 1n << 60n, /declares a header of 1152921504606846976 bytes/],
  ["not JSON", "hello", 0, undefined, /not valid JSON/],
  ["a list", "[1]", 0, undefined, /not a JSON object/],
  ["overlap", { a: f32([2], 0, 8), b: f32([2], 4, 12) }, 12, undefined, /"a" and "b" overlap/],
  ["gap", { a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12, undefined, /4 bytes between "a" and "b"/],
  ["trailing bytes", { a: f32([1], 0, 4) }, 9, undefined, /5 bytes at the end/],
  ["cut short", { a: f32([4], 0, 16) }, 10, undefined, /cut short/],
  ["wrong size", { a: f32([3], 0, 16) }, 16, undefined, /needs 12 bytes, its offsets span 16/],
  ["negative size", { a: f32([-1], 0, 4) }, 4, undefined, /bad shape/],
  ["backwards", { a: f32([1], 4, 0) }, 4, undefined, /bad data_offsets/],
  ["huge shape", { a: f32([2 ** 40, 2 ** 40], 0, 4) }, 4, undefined, /needs .* bytes/],
  [
    "unknown dtype",
    { a: { dtype: "F12", shape: [1], data_offsets: [0, 4] } },
    4,
    undefined,
    /unknown dtype "F12"/,
  ],
  ["bad metadata", { __metadata__: { a: 1 } }, 0, undefined, /__metadata__/],
])("refuses: %s", async (name, header, data, declared, message) => {
  await expect(openSafetensors(await raw(`${name}.safetensors`, header, data, declared))).rejects.toThrow(
    message,
  );
});

test("a file larger than 4 GiB is read by byte range", async () => {
  const size = 5 * 2 ** 30;
  const header = JSON.stringify({
    big: { dtype: "U8", shape: [size], data_offsets: [0, size] },
    last: f32([1], size, size + 4),
  });
  const path = await raw("big.safetensors", header);
  const handle = await open(path, "r+"); // sparse: takes no room
  await handle.truncate(8 + header.length + size + 4);
  await handle.write(new Uint8Array(new Float32Array([42]).buffer), 0, 4, 8 + header.length + size);
  await handle.close();
  const file = await openSafetensors(path);
  expect(new Float32Array((await file.read("last")).bytes.slice().buffer)[0]).toBe(42);
  await file.close();
});

test("shards: split above a size, read as one, links followed", async () => {
  const parts = ["a", "b", "c"].map((name, i) => source(name, [i, i]));
  expect(planShards(parts, 16).map((shard) => shard.length)).toEqual([2, 1]);
  expect(planShards(parts, 1).map((shard) => shard.length)).toEqual([1, 1, 1]);
  const store = join(folder, "blobs");
  await writeWeights(store, parts, 16);
  await writeFile(join(store, "config.json"), "{}");
  const linked = join(folder, "snapshot");
  await mkdir(linked);
  for (const file of [
    "config.json",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
  ]) {
    await symlink(join(store, file), join(linked, file));
  }
  const checkpoint = await openCheckpoint(linked);
  expect(checkpoint.names).toEqual(["a", "b", "c"]);
  expect(new Float32Array((await checkpoint.read("c")).bytes.slice().buffer)[1]).toBe(2);
  await checkpoint.close();
});

test.each(["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "C:\\x", ""])(
  "an index that names %j is refused",
  async (shard) => {
    const bad = join(folder, `index-${encodeURIComponent(shard)}x`);
    await mkdir(bad, { recursive: true });
    await writeFile(join(bad, "config.json"), "{}");
    await writeFile(join(bad, "model.safetensors.index.json"), JSON.stringify({ weight_map: { t: shard } }));
    await expect(openCheckpoint(bad)).rejects.toThrow(/a shard must be a file of the same folder/);
  },
);

test("an index that promises a tensor its shard does not hold is refused", async () => {
  const bad = join(folder, "lying");
  await writeWeights(bad, [source("a", [1]), source("b", [2])], 4);
  await writeFile(join(bad, "config.json"), "{}");
  await writeFile(
    join(bad, "model.safetensors.index.json"),
    JSON.stringify({ weight_map: { a: "model-00002-of-00002.safetensors" } }),
  );
  await expect(openCheckpoint(bad)).rejects.toThrow(/the index says it holds "a", but it does not/);
});

test("a write that is cut off leaves no checkpoint that mixes old and new", async () => {
  const place = join(folder, "again");
  await writeWeights(
    place,
    ["a", "b", "c"].map((name) => source(name, [1, 1])),
    8,
  );
  await writeFile(join(place, "config.json"), "{}");
  const broken: TensorSource = { ...source("b", [2, 2]), bytes: () => Promise.reject(new Error("lost")) };
  await expect(writeWeights(place, [source("a", [2, 2]), broken], 8)).rejects.toThrow("lost");
  await expect(openCheckpoint(place)).rejects.toThrow(/there is no model\.safetensors and no/);
});

test("a tensor may have any name", async () => {
  const path = join(folder, "names.safetensors");
  await writeSafetensors(path, [source("__proto__", [3]), source("constructor", [4])]);
  const file = await openSafetensors(path);
  expect([...file.entries.keys()]).toEqual(["__proto__", "constructor"]);
  await file.close();
});

test("a write that fails leaves nothing behind", async () => {
  const path = join(folder, "half.safetensors");
  const broken: TensorSource = {
    name: "x",
    dtype: "F32",
    shape: [1],
    bytes: () => Promise.reject(new Error("lost")),
  };
  await expect(writeSafetensors(path, [broken])).rejects.toThrow("lost");
  const { readdir } = await import("node:fs/promises");
  expect((await readdir(folder)).filter((file) => file.startsWith("half"))).toEqual([]);
});
