import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { openMember, type Member } from "../../src/checkpoint/family.js";
import { entryOf } from "../../src/checkpoint/folder.js";
import { openSafetensors } from "../../src/checkpoint/safetensors.js";
import { writeSafetensors, type TensorSource } from "../../src/checkpoint/write.js";
import { mergeFolders } from "../../src/mergers/models.js";
import { findMethod } from "../../src/methods/index.js";
import { packageFolder } from "../../src/package.js";
import { toFloat32, type HostTensor } from "../../src/tensor/dtype.js";
import { byteTable } from "../../src/tensor/unpack.js";
import { temporaryFolder } from "../helpers.js";

const made = join(packageFolder, "test", "golden", "quantised");
const ways = ["nf4", "fp4", "int8", "fp8", "fp8-rows", "fp8-whole"];
let scratch: string;
let count = 0;
beforeAll(async () => {
  scratch = await temporaryFolder();
});

const open = (folder: string, dequantise = true): Promise<Member> =>
  openMember("one", folder, (name) => name, { dequantise });

/** The reference's tensors. */
async function right(way: string): Promise<Map<string, HostTensor>> {
  const file = await openSafetensors(join(made, `${way}.safetensors`));
  const found = new Map<string, HostTensor>();
  for (const name of file.entries.keys()) found.set(name, await file.read(name));
  await file.close();
  return found;
}

async function merge(models: string[], options: object = {}): Promise<{ out: string; notes: string[] }> {
  const out = join(scratch, `out ${count++}`);
  const notes: string[] = [];
  await mergeFolders(
    {
      method: findMethod("passthrough"),
      given: {},
      models,
      out,
      dtype: "auto",
      shardSize: 1e9,
      threads: 0,
      ...options,
    },
    { note: (text) => void notes.push(text), progress() {}, stopping: () => false },
  );
  return { out, notes };
}

/** A copy of a model with some tensors changed. */
async function changed(
  way: string,
  change: (name: string, tensor: HostTensor) => HostTensor | undefined,
): Promise<string> {
  const folder = join(scratch, `model ${count++}`);
  await cp(join(made, way), folder, { recursive: true });
  const file = await openSafetensors(join(made, way, "model.safetensors"));
  const sources: TensorSource[] = [];
  for (const name of file.entries.keys()) {
    const tensor = change(name, await file.read(name));
    if (tensor)
      sources.push({ name, dtype: tensor.dtype, shape: tensor.shape, bytes: async () => tensor.bytes });
  }
  await file.close();
  await writeSafetensors(join(folder, "model.safetensors"), sources);
  return folder;
}

describe.each(ways)("%s", (way) => {
  test("reads as bitsandbytes and torch read it, whole and by any range of entries", async () => {
    const { checkpoint } = await open(join(made, way));
    for (const [name, { dtype, shape, bytes }] of await right(way)) {
      expect(entryOf(checkpoint, name)).toMatchObject({ dtype, shape });
      const whole = await checkpoint.read(name);
      expect(Buffer.compare(whole.bytes, bytes), name).toBe(0);
      for (const [from, to] of [
        [0, 1],
        [1, 2],
        [63, 66],
        [101, 257],
        [4095, 4096],
      ] as const) {
        const part = await checkpoint.readRange(name, 2 * from, 2 * (to - from));
        expect(Buffer.compare(part, bytes.subarray(2 * from, 2 * to)), `${name} ${from}`).toBe(0);
      }
    }
    const plain = await openSafetensors(join(made, "plain", "model.safetensors"));
    expect(new Set(checkpoint.names)).toEqual(new Set(plain.entries.keys()));
    await plain.close();
    await checkpoint.close();
  });

  test("merges from disk to disk, and the result says so and is not quantised", async () => {
    const { out, notes } = await merge([join(made, way)], { dequantise: true });
    const file = await openSafetensors(join(out, "model.safetensors"));
    for (const [name, { bytes }] of await right(way))
      expect(Buffer.compare((await file.read(name)).bytes, bytes), name).toBe(0);
    await file.close();
    const config = JSON.parse(await readFile(join(out, "config.json"), "utf8")) as object;
    expect(config).not.toHaveProperty("quantization_config");
    expect(config).toHaveProperty("dtype", "bfloat16");
    expect(notes.join()).toMatch(/its weights were dequantised \(\w+/);
    expect(await readFile(join(out, "README.md"), "utf8")).toContain("its weights were dequantised");
  });

  test("is refused without the option, which is named", async () => {
    await expect(open(join(made, way), false)).rejects.toThrow(
      /its weights are quantised \(.*--dequantise reads it so/,
    );
  });
});

test("a quantised base under whole experts: the task vectors are of what it stands for", async () => {
  const average = { method: findMethod("linear"), given: { weight: [1, 1] } };
  const { out } = await merge([join(made, "plain"), join(made, "nf4")], {
    ...average,
    dtype: "F32",
    dequantise: true,
  });
  const [merged, plain] = await Promise.all(
    [out, join(made, "plain")].map((folder) => openSafetensors(join(folder, "model.safetensors"))),
  );
  for (const [name, tensor] of await right("nf4")) {
    const [own, other, found] = [
      toFloat32(tensor),
      toFloat32(await plain!.read(name)),
      toFloat32(await merged!.read(name)),
    ];
    found.forEach((value, i) => expect(value).toBeCloseTo((own[i]! + other[i]!) / 2, 6));
  }
  await Promise.all([merged!.close(), plain!.close()]);
});

test("without a scale the bytes of FP8 are the numbers themselves", async () => {
  const folder = await changed("fp8-whole", (name, tensor) =>
    name.endsWith("weight_scale") ? undefined : tensor,
  );
  await expect(open(folder), "where a quantiser is named, they are scaled somewhere").rejects.toThrow(
    /are quantised/,
  );
  const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as object;
  await writeFile(join(folder, "config.json"), JSON.stringify({ ...config, quantization_config: undefined }));
  const { checkpoint } = await open(folder);
  const name = "model.layers.0.self_attn.q_proj.weight";
  const codes = await openSafetensors(join(folder, "model.safetensors"));
  const expected = [...(await codes.read(name)).bytes].map((code) => byteTable("F8_E5M2")[code]);
  expect([...toFloat32(await checkpoint.read(name))]).toEqual(expected);
  await codes.close();
  await checkpoint.close();
});

test("the tables of FP8: its largest and smallest numbers, and what is none", () => {
  const [wide, deep] = [byteTable("F8_E4M3"), byteTable("F8_E5M2")];
  expect([wide[0x7e], wide[0x01], wide[0x08], wide[0xb8]]).toEqual([448, 2 ** -9, 2 ** -6, -1]);
  expect([deep[0x7b], deep[0x01], deep[0x04], deep[0xbc]]).toEqual([57344, 2 ** -16, 2 ** -14, -1]);
  expect([wide[0x7f], wide[0xff], deep[0x7c], deep[0xfc], deep[0x7d]]).toEqual([
    NaN,
    NaN,
    Infinity,
    -Infinity,
    NaN,
  ]);
});

const bytesOf = (text: string): HostTensor => {
  const bytes = new TextEncoder().encode(text);
  return { dtype: "U8", shape: [bytes.length], bytes };
};

test.each([
  [
    "scales that are too few",
    "fp8",
    /weight_scale_inv/,
    (t: HostTensor) => ({ ...t, shape: [2, 3], bytes: t.bytes.slice(0, 24) }),
    /has 6 scales, and 12 blocks/,
  ],
  [
    "a row without a scale",
    "int8",
    /SCB/,
    (t: HostTensor) => ({ ...t, shape: [63], bytes: t.bytes.slice(0, 252) }),
    /has 63 scales, and 64 blocks/,
  ],
  [
    "a layout for cards",
    "int8",
    /weight_format/,
    (t: HostTensor) => ({ ...t, bytes: Uint8Array.of(2) }),
    /laid out for a card/,
  ],
  ["a state that is none", "nf4", /quant_state/, () => bytesOf("{"), /none of bitsandbytes's/],
  [
    "a state of another shape",
    "fp4",
    /quant_state/,
    () => bytesOf('{"quant_type":"fp4","blocksize":64,"dtype":"bfloat16","shape":[64,65]}'),
    /none of bitsandbytes's/,
  ],
  [
    "a block of no entries",
    "fp4",
    /quant_state/,
    () => bytesOf('{"quant_type":"fp4","blocksize":0,"dtype":"bfloat16","shape":[64,64]}'),
    /none of bitsandbytes's/,
  ],
  [
    "a table that is cut",
    "nf4",
    /\.quant_map/,
    (t: HostTensor) => ({ ...t, shape: [15], bytes: t.bytes.slice(0, 60) }),
    /none of bitsandbytes's/,
  ],
  [
    "scales of scales that are too few",
    "nf4",
    /nested_absmax/,
    (t: HostTensor) => ({ ...t, shape: [0], bytes: new Uint8Array() }),
    /absmax" has 0 scales, and 1 blocks/,
  ],
])("%s: refused", async (_, way, pattern, change, message) => {
  const folder = await changed(way, (name, tensor) => (pattern.test(name) ? change(tensor) : tensor));
  await expect(open(folder)).rejects.toThrow(message);
});

test("other quantisers are refused all the same", async () => {
  const folder = await changed("plain", (_, tensor) => tensor);
  const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as object;
  const quantised = { ...config, quantization_config: { quant_method: "gptq", bits: 4 } };
  await writeFile(join(folder, "config.json"), JSON.stringify(quantised));
  await expect(open(folder)).rejects.toThrow(/its weights are quantised \(gptq\).*give that folder$/);
});
