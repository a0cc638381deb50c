/** Small models of random numbers in the forms in which models are published. */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { zipSync } from "fflate";
import { PbfWriter } from "pbf";
import seedrandom from "seedrandom";
import { writeText } from "../../../src/checkpoint/files.js";
import { writeSafetensors, type TensorSource } from "../../../src/checkpoint/write.js";
import { elements, fromFloat32 } from "../../../src/tensor/dtype.js";

export async function writeBytes(path: string, bytes: Uint8Array): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, bytes);
}

export type Shapes = Iterable<readonly [name: string, shape: readonly number[]]>;

/** A tensor's numbers: a base's by its name, an expert's with something of its own. */
function numbers(name: string, shape: readonly number[], seed: number): Float32Array {
  const own = seedrandom(name);
  const added = seedrandom(`${seed}/${name}`);
  const isNorm = /norm|layrnorm|LayerNorm/.test(name) && name.endsWith("weight");
  return Float32Array.from(
    { length: elements(shape) },
    () => (isNorm ? 1 : 0) + 0.3 * (own() - 0.5) + (seed === 0 ? 0 : 0.1 * (added() - 0.5)),
  );
}

export const tensors = (shapes: Shapes, seed: number): TensorSource[] =>
  [...shapes].map(([name, shape]) => ({
    name,
    shape: [...shape],
    dtype: "F32",
    bytes: async () => fromFloat32(numbers(name, shape, seed), "F32"),
  }));

/** A folder with config.json and model.safetensors. */
export async function safetensorsModel(
  folder: string,
  config: object,
  shapes: Shapes,
  seed: number,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeText(join(folder, "config.json"), config);
  await writeSafetensors(join(folder, "model.safetensors"), tensors(shapes, seed), { format: "pt" });
}

/** Pickle's words for what torch.save writes of a state dict. */
class Pickle {
  readonly #parts: Uint8Array[] = [];
  raw(...bytes: number[]): this {
    this.#parts.push(Uint8Array.from(bytes));
    return this;
  }
  text(value: string): this {
    const bytes = new TextEncoder().encode(value);
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, bytes.length, true);
    this.#parts.push(Uint8Array.of(0x58), length, bytes);
    return this;
  }
  int(value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setInt32(0, value, true);
    this.#parts.push(Uint8Array.of(0x4a), bytes);
    return this;
  }
  global(module: string, name: string): this {
    this.#parts.push(new TextEncoder().encode(`c${module}\n${name}\n`));
    return this;
  }
  ints(values: readonly number[]): this {
    this.raw(0x28);
    for (const value of values) this.int(value);
    return this.raw(0x74);
  }
  bytes(): Uint8Array {
    return Buffer.concat(this.#parts);
  }
}

/** Steps from one entry of a dimension to the next. */
const strides = (shape: readonly number[]): number[] =>
  shape.map((_, i) => shape.slice(i + 1).reduce((all, size) => all * size, 1));

/** One tensor: torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict()). */
function pickleTensor(pickle: Pickle, storage: string, shape: readonly number[]): void {
  pickle.global("torch._utils", "_rebuild_tensor_v2").raw(0x28);
  pickle.raw(0x28).text("storage").global("torch", "FloatStorage").text(storage).text("cpu");
  pickle.int(elements(shape)).raw(0x74, 0x51);
  pickle.int(0).ints(shape).ints(strides(shape)).raw(0x89);
  pickle.global("collections", "OrderedDict").raw(0x29, 0x52).raw(0x74, 0x52);
}

/**
 * pytorch_model.bin as torch.save writes it. @param shared other names of a tensor, which share its numbers
 */
export async function torchFile(
  path: string,
  sources: readonly TensorSource[],
  shared: Readonly<Record<string, string>> = {},
): Promise<void> {
  const pickle = new Pickle().raw(0x80, 2).global("collections", "OrderedDict").raw(0x29, 0x52, 0x28);
  const files: Record<string, Uint8Array> = {};
  const places = new Map(sources.map(({ name, shape }, i) => [name, { storage: String(i), shape }]));
  for (const { name, bytes } of sources) files[`archive/data/${places.get(name)?.storage}`] = await bytes();
  const named = [...places, ...Object.entries(shared).map(([name, of]) => [name, places.get(of)] as const)];
  for (const [name, place] of named) {
    if (!place) throw new Error(`${name} shares nothing`);
    pickleTensor(pickle.text(name), place.storage, place.shape);
  }
  pickle.raw(0x75, 0x2e);
  const archive = { "archive/data.pkl": pickle.bytes(), ...files, "archive/version": Buffer.from("3\n") };
  await writeBytes(path, zipSync(archive, { level: 0 }));
}

/** spiece.model: T5's three, then words and their letters, each with a score. @returns how many pieces there are */
export async function sentencePiece(path: string, words: readonly string[]): Promise<number> {
  const letters = Array.from({ length: 95 }, (_, i) => String.fromCharCode(33 + i)).filter(
    (one) => one !== "\u007f",
  );
  const special = [
    ["<pad>", 3],
    ["</s>", 3],
    ["<unk>", 2],
  ] as const;
  const normal = [...new Set(["▁", ...words.map((word) => `▁${word}`), ...letters])];
  const pieces = [
    ...special.map(([text, type]) => ({ text, score: 0, type })),
    ...normal.map((text, i) => ({ text, score: text.length > 1 ? -4 - i / 1000 : -8, type: 1 })),
  ];
  const pbf = new PbfWriter();
  for (const { text, score, type } of pieces)
    pbf.writeMessage(
      1,
      (_: undefined, inner: PbfWriter) => {
        inner.writeStringField(1, text);
        inner.writeFloatField(2, score);
        inner.writeVarintField(3, type);
      },
      undefined,
    );
  await writeBytes(path, pbf.finish());
  return pieces.length;
}
