import { open, type FileHandle } from "node:fs/promises";
import { UserError } from "../errors.js";
import { dtypeBytes, elements, isDType, type DType, type HostTensor } from "../tensor/dtype.js";

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

async function readExactly(
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

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function parseEntry(
  path: string,
  name: string,
  value: unknown,
  dataStart: number,
  fileSize: number,
): TensorEntry {
  const where = `${path}: tensor "${name}"`;
  if (!isRecord(value)) throw new UserError(`${where}: its header entry is not an object`);
  const { dtype, shape, data_offsets: offsets } = value;
  if (!isDType(dtype)) throw new UserError(`${where}: unknown dtype ${JSON.stringify(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isSize))
    throw new UserError(`${where}: bad shape ${JSON.stringify(shape)}`);
  if (
    !Array.isArray(offsets) ||
    offsets.length !== 2 ||
    !offsets.every(isSize) ||
    offsets[0]! > offsets[1]!
  ) {
    throw new UserError(`${where}: bad data_offsets ${JSON.stringify(offsets)}`);
  }
  const [start, end] = [dataStart + offsets[0]!, dataStart + offsets[1]!];
  const expected = elements(shape) * dtypeBytes[dtype];
  if (end - start !== expected) {
    throw new UserError(
      `${where}: ${dtype} ${JSON.stringify(shape)} needs ${expected} bytes, its offsets span ${end - start}`,
    );
  }
  if (end > fileSize) {
    throw new UserError(
      `${where}: its bytes end at ${end}, the file at ${fileSize}; the file is cut short, fetch it again`,
    );
  }
  return { dtype, shape, start, end };
}

/** Every byte of the data section must belong to exactly one tensor, as the format demands. */
function checkLayout(
  path: string,
  entries: Map<string, TensorEntry>,
  dataStart: number,
  fileSize: number,
): void {
  const sorted = [...entries].sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  let at = dataStart;
  let previous = "the header";
  for (const [name, entry] of sorted) {
    if (entry.start < at) throw new UserError(`${path}: tensors "${previous}" and "${name}" overlap`);
    if (entry.start > at)
      throw new UserError(
        `${path}: ${entry.start - at} bytes between "${previous}" and "${name}" belong to no tensor`,
      );
    at = entry.end;
    previous = name;
  }
  if (at !== fileSize) throw new UserError(`${path}: ${fileSize - at} bytes at the end belong to no tensor`);
}

/**
 * Opens a safetensors file and checks its whole header: length, JSON, dtypes, shapes, offsets, overlaps, gaps.
 * Nothing in the file is trusted before it has been compared with the file's size.
 * @throws UserError naming the file and the tensor.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    if (size < 8) throw new UserError(`${path}: ${size} bytes are too few for a safetensors file`);
    const lengthBytes = await readExactly(handle, path, 0, 8);
    const declared = new DataView(lengthBytes.buffer).getBigUint64(0, true);
    if (declared > BigInt(Math.min(maxHeaderBytes, size - 8))) {
      throw new UserError(
        `${path}: it declares a header of ${declared} bytes but holds ${size}; not a safetensors file, or cut short`,
      );
    }
    const headerLength = Number(declared);
    let header: unknown;
    try {
      header = JSON.parse(
        new TextDecoder("utf-8", { fatal: true }).decode(await readExactly(handle, path, 8, headerLength)),
      );
    } catch (error) {
      if (error instanceof UserError) throw error;
      throw new UserError(`${path}: its header is not valid JSON; not a safetensors file, or damaged`);
    }
    if (!isRecord(header)) throw new UserError(`${path}: its header is not a JSON object`);
    const dataStart = 8 + headerLength;
    const entries = new Map<string, TensorEntry>();
    let metadata: Record<string, string> = {};
    for (const [name, value] of Object.entries(header)) {
      if (name === "__metadata__") {
        if (!isRecord(value) || !Object.values(value).every((v) => typeof v === "string")) {
          throw new UserError(`${path}: __metadata__ must map names to strings`);
        }
        metadata = value as Record<string, string>;
      } else {
        entries.set(name, parseEntry(path, name, value, dataStart, size));
      }
    }
    checkLayout(path, entries, dataStart, size);
    const entryOf = (name: string): TensorEntry => {
      const entry = entries.get(name);
      if (!entry) throw new UserError(`${path}: there is no tensor "${name}"`);
      return entry;
    };
    return {
      path,
      entries,
      metadata,
      async read(name) {
        const { dtype, shape, start, end } = entryOf(name);
        return { dtype, shape, bytes: await readExactly(handle, path, start, end - start) };
      },
      async readRange(name, from, length) {
        const { start, end } = entryOf(name);
        if (from < 0 || length < 0 || start + from + length > end)
          throw new RangeError(`${path}: bytes ${from} to ${from + length} lie outside "${name}"`);
        return readExactly(handle, path, start + from, length);
      },
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}
