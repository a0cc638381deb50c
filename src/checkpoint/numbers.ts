/** Numbers are looked at on their way in and out: a NaN or an infinity makes a whole model worthless. */
import * as access from "../at.js";
import { UserError } from "../errors.js";
import type { FloatDType } from "../tensor/dtype.js";

// A name of this module's own: see tensor/dtype.ts.
const { i32 } = access;

/** Where the first number that is NaN or infinite stands; −1 where all are finite. */
export function firstNotFinite(values: Float32Array): number {
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length);
  // One more in the exponent runs over into the sign where all its bits are set, and only there.
  let over = 0;
  const whole = bits.length & ~3;
  for (let i = 0; i < whole; i += 4) {
    over |=
      ((i32(bits, i) & 0x7fffffff) + 0x00800000) |
      ((i32(bits, i + 1) & 0x7fffffff) + 0x00800000) |
      ((i32(bits, i + 2) & 0x7fffffff) + 0x00800000) |
      ((i32(bits, i + 3) & 0x7fffffff) + 0x00800000);
  }
  for (let i = whole; i < bits.length; i++) over |= (i32(bits, i) & 0x7fffffff) + 0x00800000;
  return over >= 0 ? -1 : values.findIndex((value) => !Number.isFinite(value));
}

/** From where on a number is rounded to infinity, and what to say. */
const beyond: Readonly<Record<FloatDType, readonly [from: number, what: string]>> = {
  F32: [Infinity, ""],
  F16: [65520, "infinity in float16, which ends at 65504; use --dtype BF16 or F32"],
  BF16: [3.3961776e38, "infinity in bfloat16; use --dtype F32"],
};

/** Running averages that are divided by the root of: a value below 0 gives NaN. */
const variance = /(^|\.)running_var$/;

/** What makes values worthless in a type; undefined where all is well. */
function problemOf(
  name: string,
  dtype: FloatDType,
  values: Float32Array,
): { readonly what: string; readonly at: number } | undefined {
  const bad = firstNotFinite(values);
  if (bad >= 0) return { what: `gives ${values[bad]}`, at: bad };
  const [from, what] = beyond[dtype];
  const large = dtype === "F32" ? -1 : values.findIndex((value) => Math.abs(value) >= from);
  if (large >= 0) return { what: `gives ${values[large]}, which is ${what},`, at: large };
  const negative = variance.test(name) ? values.findIndex((value) => value < 0) : -1;
  if (negative >= 0)
    return {
      what: `gives a running variance below 0 (${values[negative]}); merge with average or a smaller λ`,
      at: negative,
    };
  return undefined;
}

/**
 * Looks at values on their way into a file. @param from the number of the first
 * @throws UserError naming the tensor and the entry that makes it worthless
 */
export function refuseWorthless(name: string, dtype: FloatDType, values: Float32Array, from = 0): void {
  const problem = problemOf(name, dtype, values);
  if (problem) throw new UserError(`"${name}": the merge ${problem.what} at entry ${from + problem.at}`);
}
