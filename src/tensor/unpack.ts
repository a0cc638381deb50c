import * as access from "../at.js";

// Names of this module's own: through an import, which V8 does not see through in a loop, access takes a third longer.
const { f32, u8 } = access;

/** How numbers in few bits are laid out: each is a code, which stands for a number of a table, times a scale. */
export interface CodeLayout {
  /** Of two codes in a byte the upper half is the first. */
  readonly bits: 4 | 8;
  /** What each code stands for. */
  readonly table: readonly number[];
  /** Entries a row. */
  readonly width: number;
  /** Rows and columns that share a scale; the last blocks may be cut. */
  readonly rows: number;
  readonly columns: number;
  /** Multiplies all. */
  readonly factor: number;
}

/** Scales that a weight of so many entries has. */
export function scaleCount({ width, rows, columns }: CodeLayout, entries: number): number {
  const across = Math.ceil(width / columns);
  return Math.ceil(entries / width / rows) * across;
}

/** The bytes in which entries `from` to before `from + count` lie. */
export function codeBytes(
  bits: CodeLayout["bits"],
  from: number,
  count: number,
): [start: number, length: number] {
  const perByte = 8 / bits;
  const start = Math.floor(from / perByte);
  return [start, Math.ceil((from + count) / perByte) - start];
}

/** The code of entry `i`, where the bytes begin with that of entry 0. */
function codeAt(codes: Uint8Array, bits: CodeLayout["bits"], i: number): number {
  if (bits === 8) return u8(codes, i);
  const pair = u8(codes, i >> 1);
  if (i & 1) return pair & 15;
  return pair >> 4;
}

/**
 * Reads entries `from` to before `from + out.length` as float32, each product rounded as float32.
 * @param codes the bytes that {@link codeBytes} names
 * @param scales of the whole weight, block after block
 */
export function unpack(
  codes: Uint8Array,
  from: number,
  out: Float32Array,
  { scales, ...layout }: CodeLayout & { readonly scales: Float32Array },
): void {
  const { bits, width, rows, columns } = layout;
  const table = Float32Array.from(layout.table);
  const factor = Math.fround(layout.factor);
  const across = Math.ceil(width / columns);
  // Where the first byte holds a code of the entry before.
  const skipped = from % (8 / bits);
  for (let done = 0; done < out.length;) {
    const row = Math.floor((from + done) / width);
    const column = from + done - row * width;
    const block = Math.floor(column / columns);
    const end = Math.min(width, (block + 1) * columns);
    const count = Math.min(end - column, out.length - done);
    const scale = f32(scales, Math.floor(row / rows) * across + block);
    for (let i = done; i < done + count; i++)
      out[i] = Math.fround(f32(table, codeAt(codes, bits, i + skipped)) * scale) * factor;
    done += count;
  }
}

const signOf = (code: number): number => 1 - 2 * (code >> 7);

/** A finite number of 8 bits, one of them its sign. @param bias of the exponent */
function smallFloat(code: number, mantissaBits: number, bias: number): number {
  const steps = 2 ** mantissaBits;
  const mantissa = code & (steps - 1);
  const exponent = (code & 0x7f) >> mantissaBits;
  if (exponent === 0) return signOf(code) * mantissa * 2 ** (1 - bias - mantissaBits);
  return signOf(code) * (steps + mantissa) * 2 ** (exponent - bias - mantissaBits);
}

/** Micikevicius et al. 2022, "FP8 Formats for Deep Learning": E4M3 has one code that is no number, and no infinity. */
function e4m3(code: number): number {
  if ((code & 0x7f) === 0x7f) return NaN;
  return smallFloat(code, 3, 7);
}

function e5m2(code: number): number {
  const magnitude = code & 0x7f;
  if (magnitude > 0x7c) return NaN;
  if (magnitude === 0x7c) return signOf(code) * Infinity;
  return smallFloat(code, 2, 15);
}

const valuesOfBytes: Readonly<Record<"F8_E4M3" | "F8_E5M2" | "I8", (code: number) => number>> = {
  F8_E4M3: e4m3,
  F8_E5M2: e5m2,
  I8: (code) => (code << 24) >> 24,
};

/** What bytes stand for, by the type that a file says they have. */
export const byteTable = (dtype: keyof typeof valuesOfBytes): number[] =>
  Array.from({ length: 256 }, (_, code) => valuesOfBytes[dtype](code));

/** Scales that are codes themselves (bitsandbytes's double quantisation), with a number that is added to each. */
export interface CodedScales extends CodeLayout {
  readonly offset: number;
}

/** @param scales of the codes' own blocks */
export function unpackScales(
  coded: Uint8Array,
  { offset, ...layout }: CodedScales,
  scales: Float32Array,
): Float32Array {
  const out = new Float32Array(coded.length);
  unpack(coded, 0, out, { ...layout, scales });
  return out.map((value) => value + offset);
}
