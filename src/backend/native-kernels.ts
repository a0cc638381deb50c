import { getKernel, mul, reshape, slice, Tensor, tidy, type TensorInfo } from "@tensorflow/tfjs-core";
import { defineKernel, threeSizes, type KernelCall } from "./kernels.js";

/** The parts of tfjs-node's back end that our kernels touch. */
interface NativeBackend {
  readonly binding: {
    readonly TF_ATTR_BOOL: number;
    readonly TF_ATTR_TYPE: number;
    executeOp(name: string, attributes: OpAttribute[], inputs: number[], outputs: number): OpOutput[];
    deleteTensor(id: number): void;
  };
  getInputTensorIds(tensors: TensorInfo[]): number[];
  createOutputTensor(output: OpOutput): Tensor;
}

interface OpOutput {
  id: number;
  shape: number[];
  dtype: number;
}
interface OpAttribute {
  name: string;
  type: number;
  value: unknown;
}
type NativeCall = KernelCall<NativeBackend>;

/** TensorFlow's own numbers for types (tensorflow/c/tf_datatype.h); tfjs-node names only some. */
const tensorflowTypes = { float: 1, int32: 3, int8: 6, bfloat16: 14 };

/** An op of TensorFlow that has one output. @param attributes booleans, and numbers of types */
function runOp(
  { binding }: NativeBackend,
  name: string,
  attributes: Readonly<Record<string, boolean | number>>,
  inputs: number[],
): OpOutput {
  const typed = Object.entries(attributes).map(([name, value]) => ({
    name,
    type: typeof value === "boolean" ? binding.TF_ATTR_BOOL : binding.TF_ATTR_TYPE,
    value,
  }));
  const [output] = binding.executeOp(name, typed, inputs, 1);
  if (!output) throw new Error(`TensorFlow's ${name} gave nothing`);
  return output;
}

/**
 * matMul of two matrices through `MatMul`, which is faster there than the batched product that tfjs-node always takes.
 * Everything else is left to tfjs-node's kernel.
 */
function defineMatMul(): void {
  const batched = getKernel("BatchMatMul", "tensorflow").kernelFunc;
  defineKernel<NativeBackend>("tensorflow", "BatchMatMul", (call) => {
    const [a, b] = [call.input("a"), call.input("b")];
    if (a.shape.length !== 2 || b.shape.length !== 2 || a.dtype !== "float32") return call.passTo(batched);
    const { backend } = call;
    const product = runOp(
      backend,
      "MatMul",
      {
        transpose_a: call.flag("transposeA"),
        transpose_b: call.flag("transposeB"),
        T: tensorflowTypes.float,
      },
      backend.getInputTensorIds([a, b]),
    );
    return backend.createOutputTensor(product);
  });
}

/** How deltas lie in words of 32 bits: TensorFlow's type of an entry, and how many a word holds. */
const packedTypes = {
  bf16: { type: tensorflowTypes.bfloat16, perWord: 2 },
  int8: { type: tensorflowTypes.int8, perWord: 4 },
};
type WordPacking = (typeof packedTypes)[keyof typeof packedTypes];

/** Words of int32 → their entries in float32, in another shape: the caller gives them theirs. */
function unpackWords(backend: NativeBackend, data: TensorInfo, type: number): Tensor {
  const { int32, float } = tensorflowTypes;
  // tfjs knows no tensors of these types: this one lives between two calls only.
  const narrow = runOp(backend, "Bitcast", { T: int32, type }, backend.getInputTensorIds([data]));
  const wide = runOp(backend, "Cast", { SrcT: type, DstT: float, Truncate: false }, [narrow.id]);
  backend.binding.deleteTensor(narrow.id);
  return backend.createOutputTensor(wide);
}

/** What the last word of a row holds beyond the row's end falls away. @param rows [experts, rows, padded width] */
function cutRows(rows: Tensor, width: number): Tensor {
  if (rows.shape[2] === width) return rows;
  return slice(rows, [0, 0, 0], [...rows.shape.slice(0, 2), width]);
}

/** Rows times their scales, where there are some. @param rows [experts, rows, width] */
function scaleRows(rows: Tensor, scales: TensorInfo | undefined): Tensor {
  if (!scales) return rows;
  // tfjs-node's tensors are tfjs's own; its types only promise less.
  if (!(scales instanceof Tensor)) throw new TypeError("scales must be a tensor");
  return mul(rows, reshape(scales, [...rows.shape.slice(0, 2), 1]));
}

/** Packed deltas [experts, rows, words] → [experts, rows · width]. */
function unpackDeltas(call: NativeCall, { type, perWord }: WordPacking): Tensor {
  const [data, width] = [call.input("data"), call.number("width")];
  const [experts, rows, words] = threeSizes(data);
  return tidy(() => {
    const padded = reshape(unpackWords(call.backend, data, type), [experts, rows, words * perWord]);
    const plain = cutRows(padded, width);
    return reshape(scaleRows(plain, call.optionalInput("scales")), [experts, rows * width]);
  });
}

/** What TensorFlow lacks, or does slowly as tfjs-node asks it. */
export function registerNativeKernels(): void {
  // `auto` loads TensorFlow once to look for a card and once more for the CPU.
  if (getKernel("UnpackDeltas_bf16", "tensorflow")) return;
  defineMatMul();
  // Unpacked through `Bitcast`.
  for (const [name, packing] of Object.entries(packedTypes))
    defineKernel<NativeBackend>("tensorflow", `UnpackDeltas_${name}`, (call) => unpackDeltas(call, packing));
}
