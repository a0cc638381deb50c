import {
  backend_util,
  registerKernel,
  unregisterKernel,
  util,
  getKernel,
  type KernelConfig,
  type TensorInfo,
} from "@tensorflow/tfjs-core";
import { registerUnpackKernels } from "./packed.js";

/** The parts of tfjs's WASM back end that our kernels touch. */
interface WasmBackend {
  dataIdMap: { get(id: object): { id: number; memoryOffset: number }; delete(id: object): void };
  wasm: {
    cwrap(name: string, result: null, parameters: string[]): (...values: unknown[]) => void;
    tfjs: { disposeData(id: number): void };
  };
  makeOutput(shape: number[], dtype: "float32", memoryOffset?: number): TensorInfo;
  typedArrayFromHeap(info: TensorInfo): Float32Array | Int32Array;
  disposeData(id: object): void;
}

interface KernelCall {
  inputs: Record<string, TensorInfo>;
  attrs: Record<string, unknown>;
  backend: unknown;
}

let multiply: ((...values: unknown[]) => void) | undefined;
const shapeBytes = (shape: number[]) => new Uint8Array(new Int32Array(shape).buffer);

/** A [1, rows, columns] window on a tensor's memory. `release` drops the record, not the memory. */
function windowOf(backend: WasmBackend, tensor: TensorInfo, index: number, rows: number, columns: number) {
  const offset = backend.dataIdMap.get(tensor.dataId).memoryOffset + index * rows * columns * 4;
  const info = backend.makeOutput([1, rows, columns], "float32", offset);
  const { id } = backend.dataIdMap.get(info.dataId);
  return {
    id,
    shape: info.shape,
    release() {
      backend.wasm.tfjs.disposeData(id);
      backend.dataIdMap.delete(info.dataId);
    },
  };
}

/** Copies [rows, columns] transposed, in tiles that fit the first cache. */
function transposeMatrix(from: Float32Array, to: Float32Array, rows: number, columns: number): void {
  const tile = 32;
  for (let r0 = 0; r0 < rows; r0 += tile) {
    const r1 = Math.min(rows, r0 + tile);
    for (let c0 = 0; c0 < columns; c0 += tile) {
      const c1 = Math.min(columns, c0 + tile);
      for (let c = c0; c < c1; c++) for (let r = r0; r < r1; r++) to[c * rows + r] = from[r * columns + c]!;
    }
  }
}

/** Copies runs of `length` numbers in the order of a permutation of the axes before them. */
function permuteRuns(
  from: Float32Array,
  to: Float32Array,
  shape: number[],
  perm: number[],
  length: number,
): void {
  const strides = util.computeStrides([...shape, length]);
  const [sizes, steps] = [perm.map((axis) => shape[axis]!), perm.map((axis) => strides[axis]!)];
  let at = 0;
  const walk = (depth: number, source: number) => {
    for (let i = 0; i < sizes[depth]!; i++, source += steps[depth]!) {
      if (depth < sizes.length - 1) walk(depth + 1, source);
      else for (let j = 0; j < length; j++) to[at++] = from[source + j]!;
    }
  };
  walk(0, 0);
}

/**
 * transpose, for the two kinds that a transformer is full of: the last two axes swapped, and the last axis left where
 * it is (heads). The back end's own kernel strides through memory one number at a time. Others are left to it.
 */
const transposeWith =
  (shipped: KernelConfig["kernelFunc"]) =>
  ({ inputs, attrs, backend: anyBackend }: KernelCall): TensorInfo => {
    const backend = anyBackend as WasmBackend;
    const [x, perm] = [inputs["x"]!, attrs["perm"] as number[]];
    const rank = perm.length;
    const lead = perm.slice(0, -2).every((axis, i) => axis === i);
    const swaps = rank >= 2 && lead && perm[rank - 2] === rank - 1;
    const runs = rank >= 3 && perm[rank - 1] === rank - 1 && !perm.every((axis, i) => axis === i);
    if (x.dtype !== "float32" || !(swaps || runs))
      return shipped({ inputs, attrs: attrs as never, backend: anyBackend as object }) as TensorInfo;
    const out = backend.makeOutput(
      perm.map((axis) => x.shape[axis]!),
      "float32",
    );
    const [from, to] = [x, out].map((info) => backend.typedArrayFromHeap(info)) as [
      Float32Array,
      Float32Array,
    ];
    if (runs) {
      permuteRuns(from, to, x.shape.slice(0, -1), perm.slice(0, -1), x.shape[rank - 1]!);
      return out;
    }
    const [rows, columns] = x.shape.slice(-2) as [number, number];
    const size = rows * columns;
    for (let at = 0; at < from.length; at += size)
      transposeMatrix(from.subarray(at, at + size), to.subarray(at, at + size), rows, columns);
    return out;
  };

/** Swaps the last two axes. */
function swapLastAxes(backend: unknown, x: TensorInfo): TensorInfo {
  const perm = x.shape.map((_, axis) => axis);
  [perm[perm.length - 1], perm[perm.length - 2]] = [perm.length - 2, perm.length - 1];
  const kernel = getKernel("Transpose", "wasm");
  return kernel.kernelFunc({ inputs: { x }, attrs: { perm }, backend: backend as object }) as TensorInfo;
}

/**
 * matMul. As shipped the kernel is fast (XNNPACK) for one untransposed matrix only, and every gradient
 * transposes; so this transposes first, then walks the batch through windows on the same memory.
 */
function batchMatMul({ inputs, attrs, backend: anyBackend }: KernelCall): TensorInfo {
  const backend = anyBackend as WasmBackend;
  const temporaries: TensorInfo[] = [];
  const untransposed = (x: TensorInfo, transpose: boolean): TensorInfo => {
    if (!transpose) return x;
    const swapped = swapLastAxes(anyBackend, x);
    temporaries.push(swapped);
    return swapped;
  };
  const a = untransposed(inputs["a"]!, attrs["transposeA"] === true);
  const b = untransposed(inputs["b"]!, attrs["transposeB"] === true);
  const [rows, inner] = a.shape.slice(-2) as [number, number];
  const [innerB, columns] = b.shape.slice(-2) as [number, number];
  if (inner !== innerB) throw new Error(`matMul: inner sizes ${inner} and ${innerB} differ`);
  const outer = backend_util.assertAndGetBroadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2));
  const [batchA, batchB, batch] = [a.shape.slice(0, -2), b.shape.slice(0, -2), outer].map((s) =>
    util.sizeFromShape(s),
  ) as [number, number, number];
  if ((batchA !== batch && batchA !== 1) || (batchB !== batch && batchB !== 1)) {
    throw new Error(`matMul: cannot broadcast ${JSON.stringify(a.shape)} with ${JSON.stringify(b.shape)}`);
  }
  const out = backend.makeOutput([...outer, rows, columns], "float32");
  multiply ??= backend.wasm.cwrap("BatchMatMul", null, [
    "number",
    "array",
    "number",
    "number",
    "array",
    "number",
    "number",
    "number",
    "number",
  ]);
  for (let i = 0; i < batch; i++) {
    const left = windowOf(backend, a, batchA === 1 ? 0 : i, rows, inner);
    const right = windowOf(backend, b, batchB === 1 ? 0 : i, inner, columns);
    const result = windowOf(backend, out, i, rows, columns);
    multiply(
      left.id,
      shapeBytes(left.shape),
      3,
      right.id,
      shapeBytes(right.shape),
      3,
      false,
      false,
      result.id,
    );
    for (const window of [left, right, result]) window.release();
  }
  for (const temporary of temporaries) backend.disposeData(temporary.dataId);
  return out;
}

/** Sum of the rows of x that share a segment id: the gradient of an embedding look-up, absent from the back end. */
function unsortedSegmentSum({ inputs, attrs, backend: anyBackend }: KernelCall): TensorInfo {
  const backend = anyBackend as WasmBackend;
  const [x, segmentIds] = [inputs["x"]!, inputs["segmentIds"]!];
  const width = util.sizeFromShape(x.shape.slice(1));
  const count = attrs["numSegments"] as number;
  const out = backend.makeOutput([count, ...x.shape.slice(1)], "float32");
  const [values, ids, sums] = [x, segmentIds, out].map((info) => backend.typedArrayFromHeap(info)) as [
    Float32Array,
    Int32Array,
    Float32Array,
  ];
  sums.fill(0);
  for (let row = 0; row < ids.length; row++) {
    const id = ids[row]!;
    if (id < 0 || id >= count) continue;
    for (let i = 0; i < width; i++) sums[id * width + i]! += values[row * width + i]!;
  }
  return out;
}

/** Adds what training needs and the WASM back end lacks or does slowly. Call once, after the back end is ready. */
export function registerWasmKernels(): void {
  const add = (kernelName: string, kernelFunc: (call: KernelCall) => TensorInfo) => {
    const shipped = getKernel(kernelName, "wasm");
    if (shipped) unregisterKernel(kernelName, "wasm");
    // The one it replaces is still called, by this one and by kernels that know it by its function: it
    // must be set up too.
    registerKernel({
      kernelName,
      backendName: "wasm",
      ...(shipped?.setupFunc && { setupFunc: shipped.setupFunc }),
      kernelFunc: kernelFunc as unknown as KernelConfig["kernelFunc"],
    });
  };
  add("Transpose", transposeWith(getKernel("Transpose", "wasm").kernelFunc));
  add("BatchMatMul", batchMatMul);
  add("UnsortedSegmentSum", unsortedSegmentSum);
  registerUnpackKernels("wasm", (backend) => ({
    read: (info) => (backend as WasmBackend).typedArrayFromHeap(info),
    make(shape, fill) {
      const info = (backend as WasmBackend).makeOutput(shape, "float32");
      fill((backend as WasmBackend).typedArrayFromHeap(info) as Float32Array);
      return info;
    },
  }));
}
