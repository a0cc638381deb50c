/**
 * A reader of the pickles that torch.save writes for a model's weights. It knows numbers, texts, tuples, lists,
 * dictionaries, and the few names that make a tensor; nothing is looked up or called, whatever the file asks for.
 */
import { UserError } from "../errors.js";
import type { DType } from "../tensor/dtype.js";

/** Types of torch's storages. */
const storageTypes: Readonly<Record<string, DType>> = {
  DoubleStorage: "F64",
  FloatStorage: "F32",
  HalfStorage: "F16",
  BFloat16Storage: "BF16",
  LongStorage: "I64",
  IntStorage: "I32",
  ShortStorage: "I16",
  CharStorage: "I8",
  ByteStorage: "U8",
  BoolStorage: "BOOL",
};

/** A name that the pickle asks for: one of those below, or it is refused. */
interface Global {
  readonly kind: "global";
  readonly name: string;
}

/** Numbers in the file's archive. */
interface Storage {
  readonly kind: "storage";
  readonly dtype: DType;
  /** What its record in the archive is called. */
  readonly key: string;
  readonly size: number;
}

/** A tensor as the pickle describes it: a view of a storage. Counts are of entries. */
export interface PickledTensor {
  readonly kind: "tensor";
  readonly storage: Storage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

const knownNames = new Set([
  "torch._utils _rebuild_tensor_v2",
  "torch._utils _rebuild_parameter",
  "collections OrderedDict",
  ...Object.keys(storageTypes).map((name) => `torch ${name}`),
]);

const isKind = <K extends string>(value: unknown, kind: K): value is { readonly kind: K } =>
  typeof value === "object" && value !== null && "kind" in value && value.kind === kind;
const isGlobal = (value: unknown): value is Global => isKind(value, "global");
const isStorage = (value: unknown): value is Storage => isKind(value, "storage");
const isTensor = (value: unknown): value is PickledTensor => isKind(value, "tensor");
const isCount = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
const areCounts = (value: unknown): value is number[] => Array.isArray(value) && value.every(isCount);

/** Where values are kept while a pickle is read. */
class Machine {
  readonly stack: unknown[] = [];
  readonly marks: number[] = [];
  readonly memo = new Map<number, unknown>();
  #position = 0;
  readonly #view: DataView;

  constructor(
    readonly bytes: Uint8Array,
    readonly where: string,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  bad(what: string): UserError {
    return new UserError(
      `${this.where}: ${what}; convert it to safetensors in transformers, where you trust it`,
    );
  }

  /** The next bytes. @throws UserError beyond the end */
  take(length: number): number {
    const from = this.#position;
    if (length < 0 || from + length > this.bytes.length) throw this.bad("its pickle ends early");
    this.#position = from + length;
    return from;
  }

  u8 = (): number => this.#view.getUint8(this.take(1));
  u16 = (): number => this.#view.getUint16(this.take(2), true);
  u32 = (): number => this.#view.getUint32(this.take(4), true);
  i32 = (): number => this.#view.getInt32(this.take(4), true);
  f64 = (): number => this.#view.getFloat64(this.take(8));

  u64(): number {
    const value = this.#view.getBigUint64(this.take(8), true);
    if (value > BigInt(this.bytes.length)) throw this.bad("a length in its pickle is beyond its end");
    return Number(value);
  }

  text(length: number): string {
    const from = this.take(length);
    return new TextDecoder().decode(this.bytes.subarray(from, from + length));
  }

  line(): string {
    const end = this.bytes.indexOf(10, this.#position);
    if (end < 0) throw this.bad("its pickle ends early");
    const text = this.text(end - this.#position);
    this.take(1);
    return text;
  }

  /** A whole number of so many bytes, the lowest first. */
  long(length: number): number {
    if (length > 8) throw this.bad("a number in its pickle is too large");
    let value = 0n;
    for (let i = 0; i < length; i++) value |= BigInt(this.u8()) << BigInt(8 * i);
    return Number(BigInt.asIntN(Math.max(1, 8 * length), value));
  }

  pop(): unknown {
    if (this.stack.length === 0) throw this.bad("its pickle is damaged");
    return this.stack.pop();
  }

  /** What lies above the last mark. */
  popMarked(): unknown[] {
    const mark = this.marks.pop();
    if (mark === undefined || mark > this.stack.length) throw this.bad("its pickle is damaged");
    return this.stack.splice(mark);
  }

  global(name: string): Global {
    if (!knownNames.has(name))
      throw this.bad(`its pickle asks for "${name.replace(" ", ".")}", which is not run`);
    return { kind: "global", name };
  }

  set(target: unknown, entries: readonly unknown[]): void {
    if (!(target instanceof Map) || entries.length % 2 !== 0) throw this.bad("its pickle is damaged");
    for (let i = 0; i < entries.length; i += 2) target.set(entries[i], entries[i + 1]);
  }

  append(target: unknown, items: readonly unknown[]): void {
    if (!Array.isArray(target)) throw this.bad("its pickle is damaged");
    target.push(...items);
  }

  /** `("storage", torch.FloatStorage, "0", "cpu", 12)` */
  storage(id: unknown): Storage {
    const [tag, type, key, , size]: unknown[] = Array.isArray(id) ? id : [];
    const dtype = isGlobal(type) ? storageTypes[type.name.replace(/^torch /, "")] : undefined;
    if (tag !== "storage" || dtype === undefined || typeof key !== "string" || !isCount(size))
      throw this.bad("its pickle holds a storage of no knownNames kind");
    return { kind: "storage", dtype, key, size };
  }

  /** What a knownNames name makes of its arguments. */
  reduce(callee: unknown, args: unknown): unknown {
    if (!isGlobal(callee) || !Array.isArray(args)) throw this.bad("its pickle is damaged");
    const [first, offset, shape, strides]: unknown[] = args;
    if (callee.name === "collections OrderedDict" && args.length === 0) return new Map();
    if (callee.name === "torch._utils _rebuild_parameter" && isTensor(first)) return first;
    if (callee.name === "torch._utils _rebuild_tensor_v2" && isStorage(first) && isCount(offset))
      if (areCounts(shape) && areCounts(strides) && shape.length === strides.length)
        return { kind: "tensor", storage: first, offset, shape, strides } satisfies PickledTensor;
    throw this.bad(`its pickle calls ${callee.name.replace(" ", ".")} in a way that is not knownNames`);
  }
}

/** What each opcode of a pickle does; those that are not here are refused. */
const opcodes: Readonly<Record<number, (machine: Machine) => void>> = {
  0x80: (m) => void m.u8(),
  0x95: (m) => void m.take(8),
  0x28: (m) => void m.marks.push(m.stack.length),
  0x7d: (m) => void m.stack.push(new Map()),
  0x29: (m) => void m.stack.push([]),
  0x5d: (m) => void m.stack.push([]),
  0x4e: (m) => void m.stack.push(null),
  0x88: (m) => void m.stack.push(true),
  0x89: (m) => void m.stack.push(false),
  0x4a: (m) => void m.stack.push(m.i32()),
  0x4b: (m) => void m.stack.push(m.u8()),
  0x4d: (m) => void m.stack.push(m.u16()),
  0x47: (m) => void m.stack.push(m.f64()),
  0x8a: (m) => void m.stack.push(m.long(m.u8())),
  0x58: (m) => void m.stack.push(m.text(m.u32())),
  0x8c: (m) => void m.stack.push(m.text(m.u8())),
  0x8d: (m) => void m.stack.push(m.text(m.u64())),
  0x55: (m) => void m.stack.push(m.text(m.u8())),
  0x71: (m) => void m.memo.set(m.u8(), m.stack.at(-1)),
  0x72: (m) => void m.memo.set(m.u32(), m.stack.at(-1)),
  0x94: (m) => void m.memo.set(m.memo.size, m.stack.at(-1)),
  0x68: (m) => void m.stack.push(remembered(m, m.u8())),
  0x6a: (m) => void m.stack.push(remembered(m, m.u32())),
  0x63: (m) => void m.stack.push(m.global(`${m.line()} ${m.line()}`)),
  0x93: (m) => {
    const [name, module] = [m.pop(), m.pop()];
    m.stack.push(m.global(`${String(module)} ${String(name)}`));
  },
  0x74: (m) => void m.stack.push(m.popMarked()),
  0x85: (m) => void m.stack.push([m.pop()]),
  0x86: (m) => {
    const [b, a] = [m.pop(), m.pop()];
    m.stack.push([a, b]);
  },
  0x87: (m) => {
    const [c, b, a] = [m.pop(), m.pop(), m.pop()];
    m.stack.push([a, b, c]);
  },
  0x51: (m) => void m.stack.push(m.storage(m.pop())),
  0x52: (m) => {
    const args = m.pop();
    m.stack.push(m.reduce(m.pop(), args));
  },
  // State of a dictionary of weights: their versions, which nobody needs.
  0x62: (m) => {
    m.pop();
    if (!(m.stack.at(-1) instanceof Map)) throw m.bad("its pickle changes an object that is no dictionary");
  },
  0x73: (m) => {
    const [value, key] = [m.pop(), m.pop()];
    m.set(m.stack.at(-1), [key, value]);
  },
  0x75: (m) => {
    const entries = m.popMarked();
    m.set(m.stack.at(-1), entries);
  },
  0x61: (m) => {
    const item = m.pop();
    m.append(m.stack.at(-1), [item]);
  },
  0x65: (m) => {
    const items = m.popMarked();
    m.append(m.stack.at(-1), items);
  },
};

function remembered(machine: Machine, index: number): unknown {
  if (!machine.memo.has(index)) throw machine.bad("its pickle is damaged");
  return machine.memo.get(index);
}

const stop = 0x2e;

/**
 * Reads a dictionary of tensors. @param where the file, for messages
 * @throws UserError for anything else in the pickle
 */
export function readWeightsPickle(bytes: Uint8Array, where: string): Map<string, PickledTensor> {
  const machine = new Machine(bytes, where);
  for (let code = machine.u8(); code !== stop; code = machine.u8()) {
    const run = opcodes[code];
    if (!run) throw machine.bad(`its pickle holds the opcode 0x${code.toString(16)}, which is not read`);
    run(machine);
  }
  const weights = machine.pop();
  if (!(weights instanceof Map)) throw machine.bad("it holds no dictionary of tensors");
  const found = new Map<string, PickledTensor>();
  for (const [name, tensor] of weights) {
    if (typeof name !== "string" || !isTensor(tensor))
      throw machine.bad(`it holds more than tensors by name (${String(name).slice(0, 40)})`);
    found.set(name, tensor);
  }
  return found;
}
