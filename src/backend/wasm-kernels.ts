import {
  backend_util,
  findBackend,
  getKernel,
  util,
  type KernelFunc,
  type TensorInfo,
} from "@tensorflow/tfjs-core";
import { at, f32, i32 } from "../at.js";
import { defineKernel, matrixSizes, runKernel, type KernelCall } from "./kernels.js";
import { guardMemory, packedBytes, reserveMemory, type WasmMemory } from "./wasm-memory.js";
import { registerUnpackKernels, typedReaders, type HostMemory } from "./packed.js";

/** The parts of tfjs's WASM back end that our kernels touch. */
interface WasmBackend {
  dataIdMap: { get(id: object): { id: number; memoryOffset: number }; delete(id: object): void };
  wasm: WasmMemory & {
    cwrap(name: string, result: null, parameters: string[]): (...values: unknown[]) => void;
    tfjs: { disposeData(id: number): void };
  };
  makeOutput(shape: number[], dtype: "float32", memoryOffset?: number): TensorInfo;
  typedArrayFromHeap(info: TensorInfo): unknown;
  disposeData(id: object): void;
}
type WasmCall = KernelCall<WasmBackend>;

/** The numbers of a tensor where they lie in the heap; a view is stale when the heap has grown. */
const heapOf = (backend: WasmBackend): Pick<HostMemory, "floats" | "integers"> =>
  typedReaders((info) => backend.typedArrayFromHeap(info));

let multiply: ((...values: unknown[]) => void) | undefined;
const shapeBytes = (shape: number[]) => new Uint8Array(new Int32Array(shape).buffer);

/** Matrix `index` of a tensor. */
interface MatrixPlace {
  readonly index: number;
  readonly rows: number;
  readonly columns: number;
}

/** A [1, rows, columns] window on a tensor's memory. `release` drops the record, not the memory. */
function windowOf(backend: WasmBackend, tensor: TensorInfo, { index, rows, columns }: MatrixPlace) {
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
      for (let c = c0; c < c1; c++) {
        const end = c * rows + r1;
        let source = r0 * columns + c;
        for (let target = c * rows + r0; target < end; target++) {
          to[target] = f32(from, source);
          source += columns;
        }
      }
    }
  }
}

/** Swaps the last two axes of [..., rows, columns]. */
function transposeMatrices(from: Float32Array, to: Float32Array, rows: number, columns: number): void {
  const size = rows * columns;
  for (let start = 0; start < from.length; start += size)
    transposeMatrix(from.subarray(start, start + size), to.subarray(start, start + size), rows, columns);
}

/** Copies runs (the last axis) in the order of a permutation of the axes before them. */
function permuteRuns(from: Float32Array, to: Float32Array, shape: number[], perm: number[]): void {
  const length = at(shape, -1);
  const strides = util.computeStrides(shape);
  const axes = perm.map((axis) => ({ size: at(shape, axis), stride: at(strides, axis) }));
  let written = 0;
  const walk = (depth: number, start: number): void => {
    const axis = axes[depth];
    if (!axis) {
      to.set(from.subarray(start, start + length), written);
      written += length;
      return;
    }
    for (let i = 0; i < axis.size; i++) walk(depth + 1, start + i * axis.stride);
  };
  walk(0, 0);
}

/**
 * transpose, for the two kinds that a transformer is full of: the last two axes swapped, and the last axis left where
 * it is (heads). The back end's own kernel strides through memory one number at a time. Others are left to it.
 */
const transposeWith =
  (shipped: KernelFunc) =>
  (call: WasmCall): TensorInfo => {
    const { backend } = call;
    const [x, perm] = [call.input("x"), call.numbers("perm")];
    const rank = perm.length;
    const lead = perm.slice(0, -2).every((axis, i) => axis === i);
    const swaps = rank >= 2 && lead && perm[rank - 2] === rank - 1;
    const runs = rank >= 3 && perm[rank - 1] === rank - 1 && !perm.every((axis, i) => axis === i);
    if (x.dtype !== "float32" || !(swaps || runs)) return call.passTo(shipped);
    const out = backend.makeOutput(
      perm.map((axis) => at(x.shape, axis)),
      "float32",
    );
    const { floats } = heapOf(backend);
    if (runs) permuteRuns(floats(x), floats(out), x.shape, perm.slice(0, -1));
    else transposeMatrices(floats(x), floats(out), ...matrixSizes(x));
    return out;
  };

/** Swaps the last two axes. */
function swapLastAxes(backend: WasmBackend, x: TensorInfo): TensorInfo {
  const rank = x.shape.length;
  const perm = [...x.shape.keys()].slice(0, -2).concat(rank - 1, rank - 2);
  return runKernel("wasm", "Transpose", { inputs: { x }, attrs: { perm }, backend });
}

/** Sizes of a product of two stacks of matrices, whose axes before the last two are broadcast. */
function productSizes(a: TensorInfo, b: TensorInfo) {
  const [rows, inner] = matrixSizes(a);
  const [innerB, columns] = matrixSizes(b);
  if (inner !== innerB) throw new Error(`matMul: inner sizes ${inner} and ${innerB} differ`);
  const [outerA, outerB] = [a.shape.slice(0, -2), b.shape.slice(0, -2)];
  const outer = backend_util.assertAndGetBroadcastShape(outerA, outerB);
  const batch = util.sizeFromShape(outer);
  const [batchA, batchB] = [util.sizeFromShape(outerA), util.sizeFromShape(outerB)];
  if ((batchA !== batch && batchA !== 1) || (batchB !== batch && batchB !== 1))
    throw new Error(`matMul: cannot broadcast ${JSON.stringify(a.shape)} with ${JSON.stringify(b.shape)}`);
  return { rows, inner, columns, outer, batch, batchA, batchB };
}

/** `a` times `b`, matrix by matrix, through windows on their memory. */
function multiplyStacks(backend: WasmBackend, a: TensorInfo, b: TensorInfo): TensorInfo {
  const { rows, inner, columns, outer, batch, batchA, batchB } = productSizes(a, b);
  const out = backend.makeOutput([...outer, rows, columns], "float32");
  // XNNPACK packs the second matrix in memory of its own.
  reserveMemory(backend.wasm, packedBytes(inner, columns));
  const matrix = ["number", "array", "number"];
  multiply ??= backend.wasm.cwrap("BatchMatMul", null, [...matrix, ...matrix, "number", "number", "number"]);
  for (let i = 0; i < batch; i++) {
    // A single matrix is multiplied with all of the other's.
    const left = windowOf(backend, a, { index: i % batchA, rows, columns: inner });
    const right = windowOf(backend, b, { index: i % batchB, rows: inner, columns });
    const result = windowOf(backend, out, { index: i, rows, columns });
    const [leftShape, rightShape] = [shapeBytes(left.shape), shapeBytes(right.shape)];
    multiply(left.id, leftShape, 3, right.id, rightShape, 3, false, false, result.id);
    for (const window of [left, right, result]) window.release();
  }
  return out;
}

/**
 * matMul. As shipped the kernel is fast (XNNPACK) for one untransposed matrix only, and every gradient
 * transposes; so this transposes first, then walks the batch through windows on the same memory.
 */
function batchMatMul(call: WasmCall): TensorInfo {
  const { backend } = call;
  const temporaries: TensorInfo[] = [];
  const untransposed = (x: TensorInfo, transpose: boolean): TensorInfo => {
    if (!transpose) return x;
    const swapped = swapLastAxes(backend, x);
    temporaries.push(swapped);
    return swapped;
  };
  const a = untransposed(call.input("a"), call.flag("transposeA"));
  const b = untransposed(call.input("b"), call.flag("transposeB"));
  const out = multiplyStacks(backend, a, b);
  for (const temporary of temporaries) backend.disposeData(temporary.dataId);
  return out;
}

/** Sum of the rows of x that share a segment id: the gradient of an embedding look-up, absent from the back end. */
function unsortedSegmentSum(call: WasmCall): TensorInfo {
  const { backend } = call;
  const [x, segmentIds, count] = [call.input("x"), call.input("segmentIds"), call.number("numSegments")];
  const rowShape = x.shape.slice(1);
  const width = util.sizeFromShape(rowShape);
  const out = backend.makeOutput([count, ...rowShape], "float32");
  const { floats, integers } = heapOf(backend);
  const [values, ids, sums] = [floats(x), integers(segmentIds), floats(out)];
  sums.fill(0);
  for (let row = 0; row < ids.length; row++) {
    const id = i32(ids, row);
    if (id < 0 || id >= count) continue;
    const sum = sums.subarray(id * width, (id + 1) * width);
    const value = values.subarray(row * width, (row + 1) * width);
    for (let i = 0; i < width; i++) sum[i] = f32(sum, i) + f32(value, i);
  }
  return out;
}

/** Adds what training needs and the WASM back end lacks or does slowly. Call once, after the back end is ready. */
export function registerWasmKernels(): void {
  const backend: object = findBackend("wasm");
  guardMemory((backend as WasmBackend).wasm);
  defineKernel("wasm", "Transpose", transposeWith(getKernel("Transpose", "wasm").kernelFunc));
  defineKernel("wasm", "BatchMatMul", batchMatMul);
  defineKernel("wasm", "UnsortedSegmentSum", unsortedSegmentSum);
  registerUnpackKernels<WasmBackend>("wasm", (backend) => {
    const { floats, integers } = heapOf(backend);
    return {
      floats,
      integers,
      make(shape, fill) {
        const info = backend.makeOutput(shape, "float32");
        fill(floats(info));
        return info;
      },
    };
  });
}
