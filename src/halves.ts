/** Numbers of 16 bits: half precision (F16) and bfloat16 (BF16). */
import * as access from "./at.js";

// Names of this module's own: through an import, which V8 does not see through in a loop, access takes a third longer.
const { f32, u16, u32 } = access;

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31 && fraction !== 0) return NaN;
  if (exponent === 31) return sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

let halfTable: Float32Array | undefined;
/** All 65,536 half-precision values: one look-up decodes an entry. */
function halfValues(): Float32Array {
  halfTable ??= Float32Array.from({ length: 65536 }, (_, bits) => halfToFloat(bits));
  return halfTable;
}

/** float32 → half bits, rounded to nearest even; overflow becomes infinity, NaN stays NaN. */
function floatToHalf(value: number): number {
  scratch[0] = value;
  const bits = u32(scratchBits, 0);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity
  if (magnitude < 0x38800000) {
    // Below 2^-14: a multiple of 2^-24. Adding 0.5 makes the hardware round to nearest even there.
    scratch[0] = Math.abs(value) + 0.5;
    return sign | (u32(scratchBits, 0) - 0x3f000000);
  }
  const odd = (magnitude >>> 13) & 1;
  return sign | ((magnitude - 0x38000000 + 0xfff + odd) >>> 13);
}

/** float32 bits → bfloat16 bits, rounded to nearest even; NaN stays NaN. */
function bitsToBfloat(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** Decodes the bits of F16 or BF16 into `out`. */
export function decodeHalves(source: Uint16Array, dtype: "F16" | "BF16", out: Float32Array): void {
  if (dtype === "F16") {
    const table = halfValues();
    for (let i = 0; i < source.length; i++) out[i] = f32(table, u16(source, i));
  } else {
    const bits = new Uint32Array(out.buffer, out.byteOffset, source.length);
    for (let i = 0; i < source.length; i++) bits[i] = u16(source, i) << 16;
  }
}

/** Encodes float32 values as F16 or BF16 into `out`, rounding to nearest even. */
export function encodeHalves(values: Float32Array, dtype: "F16" | "BF16", out: Uint16Array): void {
  if (dtype === "F16") {
    for (let i = 0; i < values.length; i++) out[i] = floatToHalf(f32(values, i));
  } else {
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    for (let i = 0; i < bits.length; i++) out[i] = bitsToBfloat(u32(bits, i));
  }
}
