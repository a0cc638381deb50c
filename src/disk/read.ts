import { closeSync, openSync, readSync } from "node:fs";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { decodeHalves, encodeHalves } from "../halves.js";
import { dtypeBytes, type DType, runsOfRows } from "../tensor/dtype.js";
import type { Adapted, MatrixRef, MovedRows, PackedLayout, Ref } from "../checkpoint/safetensors.js";
import { loraChange } from "../tensor/lora.js";
import { scaleEntries } from "../tensor/lowrank.js";
import { codeBytes, unpack, unpackScales } from "../tensor/unpack.js";

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

/** By what an adapter's change is known again: where its first matrix lies, and which experts of it. */
function sourceOf(adapted: Adapted): readonly [MatrixRef, unknown] {
  if (adapted.kind === "lora") return [adapted.a, adapted.experts];
  return [adapted.l, undefined];
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
      const [{ path, start }, experts] = sourceOf(adapted);
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
  if (ref.moved) {
    readMoved(files, { from, out, ...ref.moved });
    return;
  }
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

/** Entries of a table whose rows are moved. */
interface MovedEntries extends MovedRows {
  readonly from: number;
  readonly out: Float32Array;
}

/** Reads whole rows of a table, each from where it is. */
function readMoved(files: FileReader, { map, width, tables, from, out }: MovedEntries): void {
  const first = from / width;
  for (const run of runsOfRows({ map, tables }, first, first + out.length / width)) {
    const part = out.subarray((run.row - first) * width, (run.row - first + run.count) * width);
    readEntries(files, at(tables, run.table).ref, run.from * width, part);
  }
}

function readStored(files: FileReader, ref: Ref, from: number, out: Float32Array): void {
  const { path, start, dtype, constant, values, packed } = ref;
  if (packed) {
    readPacked(files, { ...ref, packed }, from, out);
    return;
  }
  if (constant !== undefined) {
    out.fill(constant);
    return;
  }
  if (values) {
    out.set(values.subarray(from, from + out.length));
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
