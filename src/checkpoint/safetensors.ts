import { dtypeBytes, elements, isDType, type DType, type HostTensor } from "../tensor/dtype.js";
import { open, type FileHandle } from "node:fs/promises";
import { UserError } from "../errors.js";
import type { StackedExperts } from "../tensor/lora.js";
import type { CodedScales, CodeLayout } from "../tensor/unpack.js";
import { isRecord, refuseDeep, refuseIrregular } from "./files.js";

/** Where a tensor's bytes lie: `start` is the first. Plain data: it is handed to threads. */
export interface Ref {
  readonly path: string;
  readonly start: number;
  readonly dtype: DType;
  /** They are numbers in few bits, which are read as `dtype`. */
  readonly packed?: PackedLayout | undefined;
  /** Its rows are taken from other places. */
  readonly moved?: MovedRows | undefined;
  /** What an adapter makes of them. */
  readonly adapted?: Adapted | undefined;
  /** No file: every entry is this number. */
  readonly constant?: number | undefined;
  /** No file: these are the entries. */
  readonly values?: Float32Array | undefined;
}

/** Where an entry of a file's header lies. */
export const refIn = (path: string, { start, dtype }: Pick<Ref, "start" | "dtype">): Ref => ({
  path,
  start,
  dtype,
});

/** A matrix in a file. */
export interface MatrixRef extends Ref {
  readonly rows: number;
  readonly columns: number;
}

/** A table whose rows are taken from several, each from where it is. */
export interface MovedRows {
  /** Which row each is of those of all `tables`, laid end to end. */
  readonly map: Int32Array;
  /** Entries a row. */
  readonly width: number;
  readonly tables: readonly { readonly rows: number; readonly ref: Ref }[];
}

/** How a quantised weight is laid out, and where its scales lie. */
export interface PackedLayout extends CodeLayout {
  readonly scales: MatrixRef;
  /** Where these are codes again: what they stand for, and where the scales of those lie. */
  readonly coded?: (CodedScales & { readonly scales: MatrixRef }) | undefined;
}

/** What an adapter makes of a weight as it is stored, [rows, width]. */
export type Adapted =
  /**
   * LoRA: + scale · B A, B [out, rank], A [rank, in]; `transposed` where the weight is stored [in, out]. DoRA: rows get
   * the lengths of `magnitude` [out] then.
   */
  | {
      readonly kind: "lora";
      readonly a: MatrixRef;
      readonly b: MatrixRef;
      readonly magnitude?: MatrixRef | undefined;
      readonly experts?: StackedExperts | undefined;
      /** Of each expert, where it adapts several. */
      readonly rank: number;
      readonly scale: number;
      readonly transposed: boolean;
      readonly width: number;
    }
  /** (IA)³: rows or columns multiplied by the numbers of a vector. */
  | {
      readonly kind: "ia3";
      readonly l: MatrixRef;
      readonly along: "rows" | "columns";
      readonly width: number;
    };

/** Where one tensor lies: offsets are absolute, in bytes from the start of the file. */
export interface TensorEntry {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly start: number;
  readonly end: number;
}

/** An open safetensors file. Its header is in memory; tensors are read by byte range when asked for. */
export interface SafetensorsFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  /** @throws UserError where it has no such tensor */
  entry(name: string): TensorEntry;
  read(name: string): Promise<HostTensor>;
  /** Some bytes of a tensor, counted from its own start. */
  readRange(name: string, start: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** The format's own bound on a header; a longer one is taken for a damaged file. */
const maxHeaderBytes = 100_000_000;
/** One read call's size: below the 2 GiB a single read can return. */
const readChunk = 64 * 1024 * 1024;

/** Bytes of safetensors files read since the process began, for reports. */
export const traffic = { read: 0 };

export async function readExactly(
  handle: FileHandle,
  path: string,
  start: number,
  length: number,
): Promise<Uint8Array<ArrayBuffer>> {
  // Not filled with zeros first: every byte is read, or an error is thrown.
  const out = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
  for (let done = 0; done < length;) {
    const { bytesRead } = await handle.read(out, done, Math.min(readChunk, length - done), start + done);
    if (bytesRead === 0)
      throw new UserError(
        `${path}: the file ends ${length - done} bytes early; it was changed or cut while it was read`,
      );
    done += bytesRead;
  }
  traffic.read += length;
  return out;
}

const isSize = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;

const isStrings = (value: unknown): value is Record<string, string> =>
  isRecord(value) && Object.values(value).every((item) => typeof item === "string");

/** Where a file's tensors lie: behind its header. Bytes from the file's start. */
interface DataSection {
  readonly path: string;
  readonly start: number;
  readonly end: number;
}

/** The first byte of a tensor and the one after its last, counted from the section's start; undefined where bad. */
function parseOffsets(value: unknown): [from: number, to: number] | undefined {
  if (!Array.isArray(value) || value.length !== 2) return undefined;
  const [from, to]: unknown[] = value;
  if (!isSize(from) || !isSize(to) || from > to) return undefined;
  return [from, to];
}

function parseEntry(name: string, value: unknown, section: DataSection): TensorEntry {
  const where = `${section.path}: tensor "${name}"`;
  if (!isRecord(value)) throw new UserError(`${where}: its header entry is not an object`);
  const { dtype, shape, data_offsets } = value;
  if (!isDType(dtype)) throw new UserError(`${where}: unknown dtype ${JSON.stringify(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isSize))
    throw new UserError(`${where}: bad shape ${JSON.stringify(shape)}`);
  const offsets = parseOffsets(data_offsets);
  if (!offsets) throw new UserError(`${where}: bad data_offsets ${JSON.stringify(data_offsets)}`);
  const [start, end] = [section.start + offsets[0], section.start + offsets[1]];
  const expected = elements(shape) * dtypeBytes[dtype];
  if (end - start !== expected) {
    throw new UserError(
      `${where}: ${dtype} ${JSON.stringify(shape)} needs ${expected} bytes, its offsets span ${end - start}`,
    );
  }
  if (end > section.end) {
    throw new UserError(
      `${where}: its bytes end at ${end}, the file at ${section.end}; the file is cut short, fetch it again`,
    );
  }
  return { dtype, shape, start, end };
}

/** Every byte of the data section must belong to exactly one tensor, as the format demands. */
function checkLayout(entries: ReadonlyMap<string, TensorEntry>, section: DataSection): void {
  const { path } = section;
  const sorted = [...entries].sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  let position = section.start;
  let previous = "the header";
  for (const [name, { start, end }] of sorted) {
    if (start < position) throw new UserError(`${path}: tensors "${previous}" and "${name}" overlap`);
    if (start > position)
      throw new UserError(
        `${path}: ${start - position} bytes between "${previous}" and "${name}" belong to no tensor`,
      );
    position = end;
    previous = name;
  }
  if (position !== section.end)
    throw new UserError(`${path}: ${section.end - position} bytes at the end belong to no tensor`);
}

/** JSON as bytes; undefined where it is not valid. */
function parseBytes(bytes: Uint8Array, path: string): unknown {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    refuseDeep(text, path);
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof UserError) throw error;
    return undefined;
  }
}

/** What git leaves in the place of a file whose bytes are elsewhere. */
const pointer = new TextEncoder().encode("version https://git-lfs.github.com/spec/");

async function refusePointer(handle: FileHandle, path: string, size: number): Promise<void> {
  if (size < pointer.length || size > 1024) return;
  const begin = await readExactly(handle, path, 0, pointer.length);
  if (begin.every((byte, i) => byte === pointer[i]))
    throw new UserError(
      `${path}: it is a Git LFS pointer, not the weights; fetch them with \`git lfs pull\``,
    );
}

/** Reads a file's header as JSON. */
async function readHeaderJson(
  handle: FileHandle,
  path: string,
): Promise<{ header: Record<string, unknown>; section: DataSection }> {
  const { size } = await handle.stat();
  await refusePointer(handle, path, size);
  if (size < 8) throw new UserError(`${path}: ${size} bytes are too few for a safetensors file`);
  const lengthBytes = await readExactly(handle, path, 0, 8);
  const declared = new DataView(lengthBytes.buffer).getBigUint64(0, true);
  if (declared > BigInt(Math.min(maxHeaderBytes, size - 8))) {
    throw new UserError(
      `${path}: it declares a header of ${declared} bytes but holds ${size}; not a safetensors file, or cut short`,
    );
  }
  const length = Number(declared);
  const header = parseBytes(await readExactly(handle, path, 8, length), path);
  if (header === undefined)
    throw new UserError(`${path}: its header is not valid JSON; not a safetensors file, or damaged`);
  if (!isRecord(header)) throw new UserError(`${path}: its header is not a JSON object`);
  return { header, section: { path, start: 8 + length, end: size } };
}

const metadataKey = "__metadata__";

/** Checks all that a header says. */
function parseHeader(
  { [metadataKey]: metadata = {}, ...tensors }: Record<string, unknown>,
  section: DataSection,
): Pick<SafetensorsFile, "entries" | "metadata"> {
  if (!isStrings(metadata)) throw new UserError(`${section.path}: ${metadataKey} must map names to strings`);
  const entries = new Map(
    Object.entries(tensors).map(([name, value]) => [name, parseEntry(name, value, section)]),
  );
  checkLayout(entries, section);
  return { entries, metadata };
}

/** Tensors of an open file, read by byte range. Closing it closes the file. */
export function rangesOf(
  handle: FileHandle,
  path: string,
  { entries, metadata }: Pick<SafetensorsFile, "entries" | "metadata">,
): SafetensorsFile {
  const entry = (name: string): TensorEntry => {
    const found = entries.get(name);
    if (!found) throw new UserError(`${path}: there is no tensor "${name}"`);
    return found;
  };
  return {
    path,
    entries,
    metadata,
    entry,
    async read(name) {
      const { dtype, shape, start, end } = entry(name);
      return { dtype, shape, bytes: await readExactly(handle, path, start, end - start) };
    },
    async readRange(name, from, length) {
      const { start, end } = entry(name);
      if (from < 0 || length < 0 || start + from + length > end)
        throw new RangeError(`${path}: bytes ${from} to ${from + length} lie outside "${name}"`);
      return readExactly(handle, path, start + from, length);
    },
    close: () => handle.close(),
  };
}

/**
 * Opens a safetensors file and checks its whole header: length, JSON, dtypes, shapes, offsets, overlaps, gaps.
 * Nothing in the file is trusted before it has been compared with the file's size.
 * @throws UserError naming the file and the tensor.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  await refuseIrregular(path);
  const handle = await open(path, "r");
  try {
    const { header, section } = await readHeaderJson(handle, path);
    return rangesOf(handle, path, parseHeader(header, section));
  } catch (error) {
    await handle.close();
    throw error;
  }
}
