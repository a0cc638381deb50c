import { closeSync, openSync, readSync } from "node:fs";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import type { Part, TensorReader } from "../methods/types.js";
import { decodeHalves, encodeHalves, dtypeBytes, elements, type DType, rowShape } from "../tensor/dtype.js";
import type { Adapted, MatrixRef, PackedLayout, Ref } from "../checkpoint/safetensors.js";
import { loraChange } from "../tensor/lora.js";
import { scaleEntries } from "../tensor/lowrank.js";
import { codeBytes, unpack, unpackScales } from "../tensor/unpack.js";
import { zip } from "../methods/inputs.js";
import { firstNotFinite } from "../checkpoint/numbers.js";
import type { PlannedTensor } from "./plan.js";

/** Entries of a part: small enough that all models' stay in a core's cache. */
const partEntries = 1 << 17;

/** Files that a thread has open, and the memory that it reads into. */
export interface FileReader {
  read(path: string, into: Uint8Array, position: number): void;
  /** A float32 array of this size, one a name, kept for the next who asks. */
  floats(name: string, size: number): Float32Array;
  /** The same for what is read before it is decoded, and written after it is encoded. */
  halves(size: number): Uint16Array;
  /** What an adapter does to entries; its factors are read once, and kept while they are in use. */
  change(adapted: Adapted): (out: Float32Array, from: number) => void;
  /** The scales of a quantised weight, kept in the same way. */
  scales(packed: PackedLayout): Float32Array;
  close(): void;
}

/** A matrix of an adapter, whole. */
function readMatrix(files: FileReader, ref: MatrixRef): Float32Array {
  const out = new Float32Array(ref.rows * ref.columns);
  readStored(files, ref, 0, out);
  return out;
}

function changeOf(files: FileReader, adapted: Adapted): (out: Float32Array, from: number) => void {
  if (adapted.kind === "ia3") {
    const l = readMatrix(files, adapted.l);
    return (out, from) => scaleEntries(out, from, adapted.width, { l, along: adapted.along });
  }
  const lengths = adapted.magnitude && readMatrix(files, adapted.magnitude);
  const [a, b] = [readMatrix(files, adapted.a), readMatrix(files, adapted.b)];
  return loraChange({ ...adapted, a, b, lengths }, adapted.width);
}

/** The scales of a quantised weight, as numbers. */
function readScaleList(files: FileReader, { scales, coded }: PackedLayout): Float32Array {
  if (!coded) return readMatrix(files, scales);
  const codes = new Uint8Array(scales.columns);
  files.read(scales.path, codes, scales.start);
  return unpackScales(codes, coded, readMatrix(files, coded.scales));
}

/** Keeps what is made of the tensor in hand (one thing an input) for who asks again under the same key. */
function keeper<T>(): (key: string, make: () => T) => T {
  const kept = new Map<string, T>();
  return (key, make) => {
    const before = kept.get(key);
    if (before !== undefined) return before;
    if (kept.size >= 64) kept.clear();
    const made = make();
    kept.set(key, made);
    return made;
  };
}

export function openFileReader(): FileReader {
  const handles = new Map<string, number>();
  const arrays = new Map<string, Float32Array>();
  let scratch = new Uint16Array(0);
  const changes = keeper<(out: Float32Array, from: number) => void>();
  const scales = keeper<Float32Array>();
  const files: FileReader = {
    read(path, into, position) {
      let handle = handles.get(path);
      if (handle === undefined) handles.set(path, (handle = openSync(path, "r")));
      for (let done = 0; done < into.length;) {
        const count = readSync(handle, into, done, into.length - done, position + done);
        if (count === 0)
          throw new UserError(
            `${path}: the file ends ${into.length - done} bytes early; it was changed or cut while it was read`,
          );
        done += count;
      }
    },
    floats(name, size) {
      let found = arrays.get(name);
      if (!found || found.length < size) arrays.set(name, (found = new Float32Array(size)));
      return found.subarray(0, size);
    },
    halves(size) {
      if (scratch.length < size) scratch = new Uint16Array(size);
      return scratch.subarray(0, size);
    },
    change(adapted) {
      const { path, start } = adapted.kind === "lora" ? adapted.a : adapted.l;
      const experts = adapted.kind === "lora" && adapted.experts;
      return changes(`${path}@${start} ${JSON.stringify(experts)}`, () => changeOf(files, adapted));
    },
    scales: (packed) =>
      scales(`${packed.scales.path}@${packed.scales.start}`, () => readScaleList(files, packed)),
    close() {
      for (const handle of handles.values()) closeSync(handle);
      handles.clear();
    },
  };
  return files;
}

export const asBytes = (view: Float32Array | Float64Array | Uint16Array): Uint8Array =>
  new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

/** Reads entries `from` to before `from + out.length` of a tensor as float32, with what an adapter makes of them. */
export function readEntries(files: FileReader, ref: Ref, from: number, out: Float32Array): void {
  readStored(files, ref, from, out);
  if (ref.adapted) files.change(ref.adapted)(out, from);
}

/** Reads entries of a quantised weight, rounded to the type that it is read as. */
function readPacked(
  files: FileReader,
  { path, start, dtype, packed }: Ref & { readonly packed: PackedLayout },
  from: number,
  out: Float32Array,
): void {
  const [first, length] = codeBytes(packed.bits, from, out.length);
  const codes = new Uint8Array(length);
  files.read(path, codes, start + first);
  unpack(codes, from, out, { ...packed, scales: files.scales(packed) });
  if (dtype === "F32") return;
  const halves = files.halves(out.length);
  encodeHalves(out, halfOf(dtype), halves);
  decodeHalves(halves, halfOf(dtype), out);
}

function readStored(files: FileReader, ref: Ref, from: number, out: Float32Array): void {
  const { path, start, dtype, constant, packed } = ref;
  if (packed) {
    readPacked(files, { ...ref, packed }, from, out);
    return;
  }
  if (constant !== undefined) {
    out.fill(constant);
    return;
  }
  const position = start + from * dtypeBytes[dtype];
  if (dtype === "F32") {
    files.read(path, asBytes(out), position);
    return;
  }
  if (dtype === "F64") {
    const doubles = new Float64Array(out.length);
    files.read(path, asBytes(doubles), position);
    out.set(doubles);
    return;
  }
  const half = halfOf(dtype);
  const halves = files.halves(out.length);
  files.read(path, asBytes(halves), position);
  decodeHalves(halves, half, out);
}

/** A type of 16 bits. @throws Error where it is another */
export function halfOf(dtype: DType): "F16" | "BF16" {
  if (dtype === "F16" || dtype === "BF16") return dtype;
  throw new Error(`${dtype} is not a weight type`);
}

/** Where entries are from: for a message. */
interface Origin {
  readonly path: string;
  /** The model's. */
  readonly label: string;
  /** The tensor's. */
  readonly name: string;
}

/** A model's entries of a part. */
interface ReadEntries extends Origin {
  readonly values: Float32Array;
}

/**
 * Takes out what is infinite in all models alike, by design (a mask that is added to scores), and puts zeros there.
 * @param from the number of the part's first entry
 * @returns by place in the part; undefined where all numbers are finite
 * @throws UserError naming an entry that is NaN or infinite in one model and not in another
 */
function takeInfinite(all: readonly ReadEntries[], from: number): Map<number, number> | undefined {
  if (all.every(({ values }) => firstNotFinite(values) < 0)) return undefined;
  const taken = new Map<number, number>();
  const [first] = all;
  for (const { values, path, label, name } of all)
    for (const [i, value] of values.entries()) {
      if (Number.isFinite(value)) continue;
      const isShared = !Number.isNaN(value) && all.length > 1 && all.every((one) => one.values[i] === value);
      if (!isShared)
        throw new UserError(
          `${path} (${label}): "${name}" holds ${value} at entry ${from + i}; the checkpoint ` +
            "is damaged or its training diverged",
        );
      if (values === first?.values) taken.set(i, value);
    }
  for (const { values } of all) for (const i of taken.keys()) values[i] = 0;
  return taken;
}

/** Square statistics, one an input: they are read whole, where those of the tensor's own size are read by parts. */
interface SquareStatistics {
  readonly refs: readonly Ref[];
  readonly rows: number;
}

function squareStatistics({ statistics = [], statisticSize }: PlannedTensor): SquareStatistics | undefined {
  if (statistics.length === 0 || statisticSize === undefined) return undefined;
  return { refs: statistics, rows: statisticSize };
}

/** An input's, whole. */
function readSquare(files: FileReader, { refs, rows }: SquareStatistics, input: number): Float32Array {
  const out = new Float32Array(rows ** 2);
  readEntries(files, at(refs, input), 0, out);
  return out;
}

/**
 * A planned tensor as a method reads it: a part of every model at a time. Memory: (k + 2) parts, each
 * at least a row.
 * @param given what the inputs are called, where the tensor does not say
 */
export function plannedReader(
  tensor: PlannedTensor,
  given: readonly string[],
  files: FileReader,
): TensorReader {
  const { name, shape, base, inputs, statistics, labels = given } = tensor;
  const size = elements(shape);
  const { rows, width } = rowShape(shape, size);
  const step = Math.max(1, Math.floor(partEntries / Math.max(1, width))) * width;
  const square = squareStatistics(tensor);
  const named = (refs: readonly Ref[]) => zip(refs, labels.slice(0, refs.length));
  // Who reads a tensor several times checks it once; what is infinite by design is taken out each time.
  let checked = false;
  const infinite = new Set<number>();
  function readPart(start: number): Part {
    const count = Math.min(step, size - start);
    const all: ReadEntries[] = [];
    const take = (key: string, ref: Ref, label: string): Float32Array => {
      const values = files.floats(key, count);
      readEntries(files, ref, start, values);
      all.push({ values, path: ref.path, label, name });
      return values;
    };
    const ofBase = base && take("base", base, "base");
    const ofInputs = named(inputs).map(([ref, label], i) => take(`input ${i}`, ref, label));
    const taken = !checked || infinite.has(start) ? takeInfinite(all, start) : undefined;
    if (taken) infinite.add(start);
    all.length = 0;
    const found =
      statistics &&
      !square &&
      named(statistics).map(([ref, label], i) => take(`statistic ${i}`, ref, `${label}, statistic`));
    // A statistic has no number that is infinite by design.
    if (!checked) for (const one of all) takeInfinite([one], start);
    return {
      start,
      base: ofBase ?? files.floats("none", count).fill(0),
      inputs: ofInputs,
      ...(found && { statistics: found }),
      ...(taken && { infinite: taken }),
    };
  }
  return {
    name,
    labels,
    rows,
    width,
    transposed: tensor.transposed,
    *parts(): Generator<Part> {
      for (let start = 0; start < size; start += step) yield readPart(start);
      checked = true;
    },
    ...(square && { gram: (input: number) => readSquare(files, square, input) }),
  };
}
