/** Quantised weights read as the numbers that they stand for: `--dequantise`. */
import { dtypeBytes, elements, fromFloat32, toFloat32 } from "../tensor/dtype.js";
import { codeBytes, unpack, unpackScales } from "../tensor/unpack.js";
import { entryOf, type Checkpoint } from "./folder.js";
import { besides, findPacked, type PackedWeight } from "./packed-weights.js";
import { methodIn, refuseQuantised, unquantised } from "./quantised.js";

/** Reads the scales of a packed weight. */
async function readScales(checkpoint: Checkpoint, { names, packed }: PackedWeight): Promise<Float32Array> {
  if (names.scales === undefined) return Float32Array.of(1);
  const stored = await checkpoint.read(names.scales);
  const { coded } = packed;
  if (!coded || names.coded === undefined) return toFloat32(stored);
  return unpackScales(stored.bytes, coded, toFloat32(await checkpoint.read(names.coded)));
}

/** {@link readScales} for weights that are read in pieces: those of the weight read last are held. */
function scaleReader(checkpoint: Checkpoint): (name: string, weight: PackedWeight) => Promise<Float32Array> {
  let last: { readonly name: string; readonly scales: Float32Array } | undefined;
  return async (name, weight) => {
    if (last?.name !== name) last = { name, scales: await readScales(checkpoint, weight) };
    return last.scales;
  };
}

/**
 * A checkpoint whose weights of FP8 (with a scale for each block, row or tensor, or none) and of bitsandbytes (4 and 8
 * bits) are floats of the type that the model computes in: the numbers that transformers computes with, to the bit.
 * What is no packed weight is as it was. Holds one weight's scales.
 * @throws UserError where it has weights of another quantiser, or parts that do not fit
 */
export async function dequantised(checkpoint: Checkpoint): Promise<Checkpoint> {
  const { folder, names } = checkpoint;
  const config = unquantised(checkpoint.config);
  const found = await findPacked(checkpoint);
  const hidden = new Set([...found.keys()].flatMap(besides));
  const left = names.filter((name) => !hidden.has(name));
  const rest = left
    .filter((name) => !found.has(name))
    .map((name) => [name, entryOf(checkpoint, name)] as const);
  refuseQuantised(folder, found.size ? config : checkpoint.config, rest);
  if (found.size === 0) return checkpoint;
  const scalesOf = scaleReader(checkpoint);
  const readEntries = async (
    name: string,
    one: PackedWeight,
    from: number,
    size: number,
  ): Promise<Uint8Array> => {
    const { entry, packed } = one;
    const [start, length] = codeBytes(packed.bits, from, size);
    const values = new Float32Array(size);
    const codes = await checkpoint.readRange(name, start, length);
    unpack(codes, from, values, { ...packed, scales: await scalesOf(name, one) });
    return fromFloat32(values, entry.dtype);
  };
  return {
    ...checkpoint,
    config,
    names: left,
    dequantised: methodIn(checkpoint.config) ?? "FP8",
    entry: (name) => found.get(name)?.entry ?? checkpoint.entry(name),
    ref(name) {
      const one = found.get(name);
      if (!one) return checkpoint.ref(name);
      return { ...checkpoint.ref(name), dtype: one.entry.dtype, packed: one.packed };
    },
    async read(name) {
      const one = found.get(name);
      if (!one) return checkpoint.read(name);
      const { dtype, shape } = one.entry;
      return { dtype, shape, bytes: await readEntries(name, one, 0, elements(shape)) };
    },
    async readRange(name, start, length) {
      const one = found.get(name);
      if (!one) return checkpoint.readRange(name, start, length);
      const bytes = dtypeBytes[one.entry.dtype];
      return new Uint8Array(await readEntries(name, one, start / bytes, length / bytes));
    },
  };
}
