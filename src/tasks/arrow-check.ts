/** Whether an Arrow file's headers and lengths can be followed: flechette trusts them, and would loop without end. */
import type { Batch } from "@uwdata/flechette";

/** What a slot of a flatbuffer's table leads to: a table, or a list of tables, or of entries of a size in bytes. */
type TableSlot =
  | { readonly table: Layout }
  | { readonly list: Layout }
  | { readonly entries: number; readonly areLengths?: true };

/** The slots of a table that are followed, by their place in its index. */
type Layout = ReadonlyMap<number, TableSlot>;

// Slots by https://arrow.apache.org/docs/format/Columnar.html (Schema.fbs, Message.fbs, File.fbs).
const leaf: Layout = new Map();
const fieldTable = new Map<number, TableSlot>([[16, { list: leaf }]]);
fieldTable.set(14, { list: fieldTable });
const schema: Layout = new Map([
  [6, { list: fieldTable }],
  [8, { list: leaf }],
]);
const records: Layout = new Map([
  [6, { entries: 16, areLengths: true }],
  [8, { entries: 16, areLengths: true }],
  [12, { entries: 8, areLengths: true }],
]);
const dictionary: Layout = new Map([[6, { table: records }]]);
const footer: Layout = new Map([
  [6, { table: schema }],
  [8, { entries: 24 }],
  [10, { entries: 24 }],
]);
/** What a message holds, by its type. */
const messages: readonly (Layout | undefined)[] = [undefined, schema, dictionary, records];

const deepest = 64;
const magic = "ARROW1";

/** A table's slot: where its value stands; undefined where it has none. */
function slotAt(view: DataView, index: number, slot: number): number | undefined {
  const table = index + view.getInt32(index, true);
  const vtable = table - view.getInt32(table, true);
  if (slot >= view.getUint16(vtable, true)) return undefined;
  const offset = view.getUint16(vtable + slot, true);
  return offset === 0 ? undefined : table + offset;
}

/** Where a list's first entry stands, and how many it has. */
function listAt(view: DataView, at: number, size: number): { first: number; length: number } {
  const base = at + view.getInt32(at, true);
  const length = view.getInt32(base, true);
  if (length < 0 || base + 4 + length * size > view.byteLength)
    throw new Error("a list in it is longer than its header");
  return { first: base + 4, length };
}

/** What is read, and what no length or place in it is above. */
interface Reader {
  readonly view: DataView;
  readonly most: number;
}

/** @throws where the table at `index` cannot be followed */
function followTable({ view, most }: Reader, layout: Layout, index: number, depth = 0): void {
  if (depth > deepest) throw new Error("its columns lie in each other without end");
  for (const [slot, what] of layout) {
    const at = slotAt(view, index, slot);
    if (at === undefined) continue;
    if ("table" in what) {
      followTable({ view, most }, what.table, at, depth + 1);
      continue;
    }
    const size = "list" in what ? 4 : what.entries;
    const { first, length } = listAt(view, at, size);
    for (let i = 0; i < length; i++) {
      const entry = first + i * size;
      if ("list" in what) followTable({ view, most }, what.list, entry, depth + 1);
      else if (what.areLengths) checkLengths(view, entry, size, most);
    }
  }
}

function checkLengths(view: DataView, entry: number, size: number, most: number): void {
  for (let at = entry; at < entry + size; at += 8) {
    const length = view.getBigInt64(at, true);
    if (length < 0n || length > BigInt(most)) throw new Error("a length in it is more than the file holds");
  }
}

/** Follows one message. @returns where the next one starts; undefined at the end */
function followMessage(bytes: DataView, start: number, most: number): number | undefined {
  if (start + 4 > bytes.byteLength) return undefined;
  const isMarked = bytes.getInt32(start, true) === -1;
  const index = isMarked ? start + 4 : start;
  if (index + 4 > bytes.byteLength) return undefined;
  const length = bytes.getInt32(index, true);
  if (length === 0) return undefined;
  if (length < 0 || index + 4 + length > bytes.byteLength)
    throw new Error("a message in it is longer than the file");
  const head = new DataView(bytes.buffer, bytes.byteOffset + index + 4, length);
  const type = slotAt(head, 0, 6);
  const content = slotAt(head, 0, 8);
  const layout = messages[type === undefined ? 0 : head.getUint8(type)];
  if (content !== undefined && layout) followTable({ view: head, most }, layout, content);
  const body = slotAt(head, 0, 10);
  const bodyBytes = body === undefined ? 0n : head.getBigInt64(body, true);
  if (bodyBytes < 0n || bodyBytes > BigInt(most)) throw new Error("a message in it is longer than the file");
  return index + 4 + length + Number(bodyBytes);
}

/**
 * Follows the headers of an Arrow file or stream.
 * @throws where a list or length in them is more than the file holds
 */
export function checkHeaders(file: Uint8Array): void {
  const bytes = new DataView(file.buffer, file.byteOffset, file.byteLength);
  // No value takes less than a bit.
  const most = 8 * file.byteLength;
  if (Buffer.from(file.subarray(0, magic.length)).toString("latin1") !== magic) {
    for (let next: number | undefined = 0; next !== undefined;) next = followMessage(bytes, next, most);
    return;
  }
  const end = file.byteLength - magic.length - 4;
  const start = end - bytes.getInt32(end, true);
  followTable({ view: bytes, most }, footer, start);
  for (const slot of [8, 10]) {
    const at = slotAt(bytes, start, slot);
    if (at === undefined) continue;
    const { first, length } = listAt(bytes, at, 24);
    for (let i = 0; i < length; i++)
      followMessage(bytes, Number(bytes.getBigInt64(first + i * 24, true)), most);
  }
}

/** Values that a batch's buffer holds; undefined where it is not counted. */
function valuesIn({ values, type }: Batch<unknown>): number | undefined {
  if (!ArrayBuffer.isView(values)) return undefined;
  const isBits = type.typeId === 6;
  const isNumbers = type.typeId === 2 || type.typeId === 3 || type.typeId === -1;
  if (isBits) return 8 * values.length;
  return isNumbers ? values.length : undefined;
}

/**
 * @param least values that are read from it
 * @throws where it has fewer, or its lists' and texts' bounds do not follow each other within what they bound
 */
export function checkBatch(batch: Batch<unknown>, least: number): void {
  const { length, offsets, children, sizes, type } = batch;
  if (length < least || (valuesIn(batch) ?? length) < length)
    throw new Error("a column in it is shorter than its rows");
  // Unions, lists with sizes: no tool that saves data sets writes them.
  if (type.typeId === 14 || sizes !== undefined)
    throw new Error("unions and views of lists are not supported");
  if (offsets !== undefined) {
    const bounded = children?.[0]?.length ?? batch.values.length;
    let last = 0;
    const count = length > 0 ? length + 1 : 0;
    for (let i = 0; i < count; i++) {
      const next = Number(offsets[i] ?? -1);
      if (!(next >= last && next <= bounded))
        throw new Error("the bounds of its lists do not follow each other");
      last = next;
    }
    for (const child of children ?? []) checkBatch(child, last);
    return;
  }
  const each = "stride" in type && typeof type.stride === "number" ? type.stride : 1;
  const isRuns = type.typeId === 22;
  for (const child of children ?? []) checkBatch(child, isRuns ? 0 : each * length);
}
