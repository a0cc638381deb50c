/** Numbers are looked at on their way in and out: a NaN or an infinity makes a whole model worthless. */
import * as access from "../at.js";
import { UserError } from "../errors.js";
import type { FloatDType } from "../tensor/dtype.js";

// A name of this module's own: see tensor/dtype.ts.
const { i32 } = access;

/** From where on a number is infinity in a type, and what to say. */
const beyond: Readonly<Record<FloatDType, readonly [from: number, what: string]>> = {
  F32: [Infinity, ""],
  F16: [65520, "infinity in float16, which ends at 65504; use --dtype BF16 or F32"],
  BF16: [3.3961775e38, "infinity in bfloat16; use --dtype F32"],
};

/** What, added to the bits of a number without its sign, runs over into the sign from that number on. */
const overflows: Readonly<Record<FloatDType, number>> = {
  F32: 0x00800000,
  F16: 0x38801000,
  BF16: 0x00808000,
};

/** Where the first number stands that is NaN, infinite or infinity in a type; −1 where there is none. */
export function firstNotFinite(values: Float32Array, dtype: FloatDType = "F32"): number {
  const bits = new Int32Array(values.buffer, values.byteOffset, values.length);
  const more = overflows[dtype];
  let over = 0;
  const whole = bits.length & ~3;
  for (let i = 0; i < whole; i += 4) {
    over |=
      ((i32(bits, i) & 0x7fffffff) + more) |
      ((i32(bits, i + 1) & 0x7fffffff) + more) |
      ((i32(bits, i + 2) & 0x7fffffff) + more) |
      ((i32(bits, i + 3) & 0x7fffffff) + more);
  }
  for (let i = whole; i < bits.length; i++) over |= (i32(bits, i) & 0x7fffffff) + more;
  if (over >= 0) return -1;
  const [from] = beyond[dtype];
  return values.findIndex((value) => !(Math.abs(value) < from));
}

/** Running averages that are divided by the root of: a value below 0 gives NaN. */
const variance = /(^|\.)running_var$/;

/** What makes values worthless in a type; undefined where all is well. */
function problemOf(
  name: string,
  dtype: FloatDType,
  values: Float32Array,
): { readonly what: string; readonly at: number } | undefined {
  const bad = firstNotFinite(values, dtype);
  if (bad >= 0) {
    if (!Number.isFinite(values[bad])) return { what: `gives ${values[bad]}`, at: bad };
    return { what: `gives ${values[bad]}, which is ${beyond[dtype][1]},`, at: bad };
  }
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
