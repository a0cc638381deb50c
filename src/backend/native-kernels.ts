import {
  getKernel,
  mul,
  registerKernel,
  reshape,
  slice,
  tidy,
  unregisterKernel,
  type KernelConfig,
  type Tensor,
  type TensorInfo,
} from "@tensorflow/tfjs-core";

/** The parts of tfjs-node's back end that our kernels touch. */
interface Backend {
  readonly binding: {
    readonly TF_ATTR_BOOL: number;
    readonly TF_ATTR_TYPE: number;
    executeOp(name: string, attributes: Attribute[], inputs: number[], outputs: number): Output[];
    deleteTensor(id: number): void;
  };
  getInputTensorIds(tensors: TensorInfo[]): number[];
  createOutputTensor(output: Output): Tensor;
}

interface Output {
  id: number;
  shape: number[];
  dtype: number;
}
interface Attribute {
  name: string;
  type: number;
  value: unknown;
}

/** TensorFlow's own numbers for types (tensorflow/c/tf_datatype.h); tfjs-node names only some. */
const dtypes = { float: 1, int32: 3, int8: 6, bfloat16: 14 };

function register(
  kernelName: string,
  kernelFunc: (call: {
    inputs: Record<string, TensorInfo>;
    attrs: Record<string, unknown>;
    backend: Backend;
  }) => TensorInfo,
): void {
  if (getKernel(kernelName, "tensorflow")) unregisterKernel(kernelName, "tensorflow");
  registerKernel({
    kernelName,
    backendName: "tensorflow",
    kernelFunc: kernelFunc as unknown as KernelConfig["kernelFunc"],
  });
}

/**
 * Kernels of the TensorFlow engine: the product of two matrices through `MatMul`, which is faster there
 * than the batched product that tfjs-node always takes, and the unpacking of deltas through `Bitcast`.
 */
export function registerNativeKernels(): void {
  // `auto` loads TensorFlow once to look for a card and once more for the CPU.
  if (getKernel("UnpackDeltas_bf16", "tensorflow")) return;
  const batched = getKernel("BatchMatMul", "tensorflow").kernelFunc;
  register("BatchMatMul", (call) => {
    const {
      inputs,
      attrs: { transposeA, transposeB },
      backend,
    } = call;
    const [a, b] = [inputs["a"]!, inputs["b"]!];
    if (a.shape.length !== 2 || b.shape.length !== 2 || a.dtype !== "float32")
      return batched(call as never) as TensorInfo;
    const { TF_ATTR_BOOL, TF_ATTR_TYPE } = backend.binding;
    const [out] = backend.binding.executeOp(
      "MatMul",
      [
        { name: "transpose_a", type: TF_ATTR_BOOL, value: transposeA === true },
        { name: "transpose_b", type: TF_ATTR_BOOL, value: transposeB === true },
        { name: "T", type: TF_ATTR_TYPE, value: dtypes.float },
      ],
      backend.getInputTensorIds([a, b]),
      1,
    );
    return backend.createOutputTensor(out!);
  });

  for (const [packing, narrow, perWord] of [
    ["bf16", dtypes.bfloat16, 2],
    ["int8", dtypes.int8, 4],
  ] as const) {
    register(`UnpackDeltas_${packing}`, ({ inputs, attrs, backend }) => {
      const { binding } = backend;
      const [data, scales] = [inputs["data"]!, inputs["scales"] as Tensor | undefined];
      const [experts, rows, words] = data.shape as [number, number, number];
      const width = attrs["width"] as number;
      const type = (name: string, value: number): Attribute => ({ name, type: binding.TF_ATTR_TYPE, value });
      // tfjs knows no tensors of these types: this one lives between two calls only.
      const [bitcast] = binding.executeOp(
        "Bitcast",
        [type("T", dtypes.int32), type("type", narrow)],
        backend.getInputTensorIds([data]),
        1,
      );
      const [cast] = binding.executeOp(
        "Cast",
        [
          type("SrcT", narrow),
          type("DstT", dtypes.float),
          { name: "Truncate", type: binding.TF_ATTR_BOOL, value: false },
        ],
        [bitcast!.id],
        1,
      );
      binding.deleteTensor(bitcast!.id);
      return tidy(() => {
        const padded = reshape(backend.createOutputTensor(cast!), [experts, rows, words * perWord]);
        const plain = padded.shape[2] === width ? padded : slice(padded, [0, 0, 0], [experts, rows, width]);
        return reshape(scales ? mul(plain, reshape(scales, [experts, rows, 1])) : plain, [
          experts,
          rows * width,
        ]);
      });
    });
  }
}
