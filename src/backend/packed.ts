import { registerKernel, util, type KernelConfig, type TensorInfo } from "@tensorflow/tfjs-core";

const bits = new Int32Array(1);
const number = new Float32Array(bits.buffer);

/**
 * One row of packed numbers → float32; merge/deltas.ts packs them: two bfloat16 or four int8 in a word,
 * low bits first.
 */
const unpackers = {
  bf16(words: Int32Array, _: number, out: Float32Array) {
    for (let i = 0; i < out.length; i++) {
      const word = words[i >> 1]!;
      bits[0] = i & 1 ? word & 0xffff0000 : word << 16;
      out[i] = number[0]!;
    }
  },
  int8(words: Int32Array, scale: number, out: Float32Array) {
    for (let i = 0; i < out.length; i++) out[i] = ((words[i >> 2]! << (24 - 8 * (i & 3))) >> 24) * scale;
  },
};

/** How a kernel reaches the numbers of an engine that keeps them in host memory. */
export interface HostMemory {
  read(info: TensorInfo): Float32Array | Int32Array;
  make(shape: number[], fill: (values: Float32Array) => void): TensorInfo;
}

interface Call {
  inputs: { data: TensorInfo; scales?: TensorInfo };
  attrs: { width: number };
  backend: unknown;
}

/** UnpackDeltas_bf16 and _int8, [experts, rows, words] → [experts, rows · width], for engines in host memory. */
export function registerUnpackKernels(backendName: string, memoryOf: (backend: unknown) => HostMemory): void {
  for (const [packing, unpack] of Object.entries(unpackers)) {
    const kernelFunc = ({ inputs: { data, scales }, attrs: { width }, backend }: Call): TensorInfo => {
      const memory = memoryOf(backend);
      const [experts, rows, words] = data.shape as [number, number, number];
      return memory.make([experts, rows * width], (out) => {
        const [packed, scaleOf] = [memory.read(data) as Int32Array, scales && memory.read(scales)];
        for (let r = 0; r < experts * rows; r++)
          unpack(
            packed.subarray(r * words, (r + 1) * words),
            scaleOf?.[r] ?? 1,
            out.subarray(r * width, (r + 1) * width),
          );
      });
    };
    registerKernel({
      kernelName: `UnpackDeltas_${packing}`,
      backendName,
      kernelFunc: kernelFunc as unknown as KernelConfig["kernelFunc"],
    });
  }
}

/** tfjs's plain JavaScript back end: its numbers are typed arrays behind a data id. */
interface CpuBackend {
  data: { get(id: object): { values: Float32Array | Int32Array } };
  makeTensorInfo(shape: number[], dtype: "float32", values: Float32Array): TensorInfo;
}

export const cpuMemory = (backend: unknown): HostMemory => ({
  read: ({ dataId }) => (backend as CpuBackend).data.get(dataId).values,
  make(shape, fill) {
    const values = new Float32Array(util.sizeFromShape(shape));
    fill(values);
    return (backend as CpuBackend).makeTensorInfo(shape, "float32", values);
  },
});
