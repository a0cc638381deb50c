import type { TensorInfo } from "@tensorflow/tfjs-core";
import { i32 } from "../at.js";
import { decodeHalves } from "../halves.js";
import { defineKernel, threeSizes } from "./kernels.js";

/**
 * One row of packed numbers → float32; merge/packing.ts packs them: two bfloat16 or float16, or four int8 in a word,
 * low bits first.
 */
const unpackers = {
  bf16(words: Int32Array, _: number, out: Float32Array) {
    // A bfloat16 is the upper half of a float32.
    const bits = new Int32Array(out.buffer, out.byteOffset, out.length);
    for (let i = 0; i < bits.length; i++) {
      const word = i32(words, i >> 1);
      bits[i] = i & 1 ? word & 0xffff0000 : word << 16;
    }
  },
  f16(words: Int32Array, _: number, out: Float32Array) {
    decodeHalves(new Uint16Array(words.buffer, words.byteOffset, out.length), "F16", out);
  },
  int8(words: Int32Array, scale: number, out: Float32Array) {
    for (let i = 0; i < out.length; i++) out[i] = ((i32(words, i >> 2) << (24 - 8 * (i & 3))) >> 24) * scale;
  },
};

/** How a kernel reaches the numbers of an engine that keeps them in host memory. */
export interface HostMemory {
  /** @throws Error where the tensor holds no float32 */
  floats(info: TensorInfo): Float32Array;
  /** @throws Error where the tensor holds no int32 */
  integers(info: TensorInfo): Int32Array;
  make(shape: number[], fill: (values: Float32Array) => void): TensorInfo;
}

/** Reads numbers of one kind out of an engine that has several. */
export function typedReaders(read: (info: TensorInfo) => unknown): Pick<HostMemory, "floats" | "integers"> {
  return {
    floats(info) {
      const values = read(info);
      if (!(values instanceof Float32Array)) throw new TypeError(`float32 was expected, not ${info.dtype}`);
      return values;
    },
    integers(info) {
      const values = read(info);
      if (!(values instanceof Int32Array)) throw new TypeError(`int32 was expected, not ${info.dtype}`);
      return values;
    },
  };
}

/** UnpackDeltas_bf16, _f16 and _int8, [experts, rows, words] → [experts, rows · width], for engines in host memory. */
export function registerUnpackKernels<B>(backendName: string, memoryOf: (backend: B) => HostMemory): void {
  for (const [packing, unpack] of Object.entries(unpackers)) {
    defineKernel<B>(backendName, `UnpackDeltas_${packing}`, (call) => {
      const memory = memoryOf(call.backend);
      const [data, scales, width] = [call.input("data"), call.optionalInput("scales"), call.number("width")];
      const [experts, rows, words] = threeSizes(data);
      return memory.make([experts, rows * width], (out) => {
        const [packed, scaleOf] = [memory.integers(data), scales && memory.floats(scales)];
        for (let r = 0; r < experts * rows; r++)
          unpack(
            packed.subarray(r * words, (r + 1) * words),
            scaleOf?.[r] ?? 1,
            out.subarray(r * width, (r + 1) * width),
          );
      });
    });
  }
}
