/** `pytorch_model.bin`: an archive of torch.save (a zip without compression), read by byte range. */
import { refuseIrregular } from "./files.js";
import { open, type FileHandle } from "node:fs/promises";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import { dtypeBytes, elements } from "../tensor/dtype.js";
import { readWeightsPickle, type PickledTensor } from "./pickle.js";
import { rangesOf, readExactly, type SafetensorsFile, type TensorEntry } from "./safetensors.js";

/** Bytes of one file of the archive. */
interface RecordSpan {
  readonly start: number;
  readonly size: number;
}

/** The longest list of an archive's files, and the longest pickle, that is believed. */
const longest = 200_000_000;

/** What a zip ends in: 22 bytes and a comment, which torch does not write. */
const endSize = 22;
const endSign = 0x06054b50;
const end64Sign = 0x06064b50;
const locator64Sign = 0x07064b50;
const entrySign = 0x02014b50;
const localSign = 0x04034b50;
const inZip64 = 0xffffffff;

const damaged = (path: string, what: string): UserError =>
  new UserError(
    `${path}: ${what}; it is damaged, or no file of torch.save (1.6 or later): fetch or save it again`,
  );

async function viewOf(handle: FileHandle, path: string, start: number, length: number): Promise<DataView> {
  return new DataView((await readExactly(handle, path, start, length)).buffer);
}

const wide = (view: DataView, offset: number): number => Number(view.getBigUint64(offset, true));

/** Where an archive's list of files lies. */
async function directorySpan(handle: FileHandle, path: string, size: number): Promise<RecordSpan> {
  if (size < endSize) throw damaged(path, "it is too short");
  const end = await viewOf(handle, path, size - endSize, endSize);
  if (end.getUint32(0, true) !== endSign) throw damaged(path, "it is no zip archive");
  const [length, start] = [end.getUint32(12, true), end.getUint32(16, true)];
  if (start !== inZip64 && length !== inZip64) return { start, size: length };
  const locator = await viewOf(handle, path, Math.max(0, size - endSize - 20), 20);
  if (locator.getUint32(0, true) !== locator64Sign) throw damaged(path, "its list of files is lost");
  const at64 = wide(locator, 8);
  if (at64 + 56 > size) throw damaged(path, "its list of files lies beyond its end");
  const end64 = await viewOf(handle, path, at64, 56);
  if (end64.getUint32(0, true) !== end64Sign) throw damaged(path, "its list of files is lost");
  return { start: wide(end64, 48), size: wide(end64, 40) };
}

/** Sizes that do not fit 32 bits stand in a field of their own, in this order: size, packed size, position. */
function wideFields(view: DataView, from: number, to: number): number[] {
  for (let i = from; i + 4 <= to; i += 4 + view.getUint16(i + 2, true)) {
    if (view.getUint16(i, true) !== 1) continue;
    const count = Math.floor(Math.min(view.getUint16(i + 2, true), to - i - 4) / 8);
    return Array.from({ length: count }, (_, k) => wide(view, i + 4 + 8 * k));
  }
  return [];
}

/** An archive's files by their names, without the folder that all lie in. */
async function recordsOf(handle: FileHandle, path: string, size: number): Promise<Map<string, RecordSpan>> {
  const span = await directorySpan(handle, path, size);
  if (span.size > longest || span.start + span.size > size)
    throw damaged(path, "its list of files is too long");
  const view = await viewOf(handle, path, span.start, span.size);
  const found = new Map<string, RecordSpan>();
  for (let i = 0; i + 46 <= span.size;) {
    if (view.getUint32(i, true) !== entrySign) throw damaged(path, "its list of files is damaged");
    const nameSize = view.getUint16(i + 28, true);
    const extraSize = view.getUint16(i + 30, true);
    const commentSize = view.getUint16(i + 32, true);
    const next = i + 46 + nameSize + extraSize + commentSize;
    if (next > span.size) throw damaged(path, "its list of files is damaged");
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, i + 46, nameSize));
    const wides = wideFields(view, i + 46 + nameSize, i + 46 + nameSize + extraSize);
    const field = (offset: number): number => {
      const value = view.getUint32(i + offset, true);
      return value === inZip64 ? (wides.shift() ?? Infinity) : value;
    };
    const [bytes, packed, position] = [field(24), field(20), field(42)];
    if (view.getUint16(i + 10, true) !== 0 || bytes !== packed)
      throw new UserError(`${path}: its file "${name}" is compressed; torch.save writes none so`);
    found.set(name.slice(name.indexOf("/") + 1), { start: position, size: bytes });
    i = next;
  }
  return found;
}

/** The same with the first byte of the contents, behind the header that stands before them. */
async function contentsOf(
  handle: FileHandle,
  path: string,
  record: RecordSpan,
  size: number,
): Promise<RecordSpan> {
  if (record.start + 30 > size) throw damaged(path, "a file of its archive lies beyond its end");
  const local = await viewOf(handle, path, record.start, 30);
  if (local.getUint32(0, true) !== localSign)
    throw damaged(path, "a file of its archive is not where its list says");
  const start = record.start + 30 + local.getUint16(26, true) + local.getUint16(28, true);
  if (start + record.size > size) throw damaged(path, "a file of its archive is cut short");
  return { start, size: record.size };
}

/** Whether a tensor's entries lie one after the other. */
function isContiguous({ shape, strides }: PickledTensor): boolean {
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const size = at(shape, axis);
    if (size !== 1 && strides[axis] !== expected) return false;
    expected *= size;
  }
  return true;
}

/** Where a tensor lies in the file. @throws UserError where it reaches out of its storage, or lies in pieces */
function entryIn(path: string, name: string, tensor: PickledTensor, contents: RecordSpan): TensorEntry {
  const { storage, offset, shape } = tensor;
  const width = dtypeBytes[storage.dtype];
  const [from, count] = [offset * width, elements(shape) * width];
  if (storage.size * width > contents.size || from + count > storage.size * width)
    throw damaged(path, `"${name}" reaches beyond its storage`);
  if (count > 0 && !isContiguous(tensor))
    throw new UserError(`${path}: "${name}" is stored as a view (transposed or sliced); save it contiguous`);
  const start = contents.start + from;
  return { dtype: storage.dtype, shape, start, end: start + count };
}

/**
 * Opens a file of torch.save that holds weights by name. Nothing in it is run; what is not a tensor is refused.
 * Held: its list of tensors. @throws UserError naming the file
 */
export async function openTorchFile(path: string): Promise<SafetensorsFile> {
  await refuseIrregular(path);
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    const records = await recordsOf(handle, path, size);
    const pickle = records.get("data.pkl");
    if (!pickle) throw damaged(path, "it holds no data.pkl");
    const order = records.get("byteorder");
    const span = await contentsOf(handle, path, pickle, size);
    if (span.size > longest) throw damaged(path, "its data.pkl is too long");
    if (order) {
      const { start, size: length } = await contentsOf(handle, path, order, size);
      const text = new TextDecoder().decode(await readExactly(handle, path, start, Math.min(length, 16)));
      if (text !== "little") throw new UserError(`${path}: its numbers are stored ${text}-endian`);
    }
    const weights = readWeightsPickle(await readExactly(handle, path, span.start, span.size), path);
    const entries = new Map<string, TensorEntry>();
    const storages = new Map<string, RecordSpan>();
    for (const [name, tensor] of weights) {
      const { key } = tensor.storage;
      const record = records.get(`data/${key}`);
      if (!record) throw damaged(path, `the storage of "${name}" is not there`);
      const contents = storages.get(key) ?? (await contentsOf(handle, path, record, size));
      storages.set(key, contents);
      entries.set(name, entryIn(path, name, tensor, contents));
    }
    return rangesOf(handle, path, { entries, metadata: {} });
  } catch (error) {
    await handle.close();
    throw error;
  }
}
