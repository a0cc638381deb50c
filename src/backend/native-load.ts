import { createRequire } from "node:module";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import {
  addonPackage,
  EngineProblem,
  findPackage,
  linkerFinds,
  linkerFolders,
  linkerList,
  nativeFolder,
  quietLibrary,
  type Loaded,
} from "./engine.js";
import {
  getKernel,
  mul,
  reshape,
  slice,
  Tensor,
  tidy,
  findBackend,
  type TensorInfo,
} from "@tensorflow/tfjs-core";
import { defineKernel, threeSizes, type KernelCall } from "./kernels.js";
import { pathToFileURL } from "node:url";
import util from "node:util";

/** The packages with which pip brings CUDA 12 to a machine that lacks it. */
const cudaPackages = ["runtime", "nvrtc", "cupti"].map((name) => `nvidia-cuda-${name}-cu12`);
const mathPackages = ["cublas", "cudnn", "cufft", "curand", "cusolver", "cusparse", "nccl", "nvjitlink"].map(
  (name) => `nvidia-${name}-cu12`,
);

/** What a machine has of what TensorFlow needs for a card. */
export interface CudaFacts {
  /** The card's device file is there. */
  readonly card: boolean;
  /** Whether a library would be found. */
  has(library: string): boolean;
}

/** Why TensorFlow finds no card, and the line that mends it. TensorFlow 2.21 is built for CUDA 12 and cuDNN 9. */
export function cudaProblem({ card, has }: CudaFacts): EngineProblem {
  if (!card)
    return new EngineProblem(
      "no NVIDIA card is here (there is no /dev/nvidia0)",
      "install the card's driver and see that nvidia-smi lists it, or use another engine",
    );
  const missing = ["libcudart.so.12", "libcublas.so.12", "libcudnn.so.9"].find((library) => !has(library));
  if (missing === undefined)
    return new EngineProblem(
      "TensorFlow finds no card it can use",
      "see that nvidia-smi lists a card, then train-merge setup native --gpu",
    );
  const newer = has("libcudart.so.13") ? "; CUDA 13's, which are here, do not serve" : "";
  const mend =
    "train-merge setup native --gpu, which fetches them, or beside a TensorFlow of your own: " +
    `python3 -m pip install ${[...cudaPackages, ...mathPackages].join(" ")}`;
  return new EngineProblem(
    `TensorFlow needs the libraries of CUDA 12 with cuDNN 9, and ${missing} is not here${newer}`,
    mend,
  );
}

/** Where TensorFlow lies that the engine was built on, where that is not the engine's own folder. */
function tensorflowElsewhere(nativeFolder: string): string | undefined {
  const text = join(nativeFolder, "tensorflow.txt");
  if (!existsSync(text)) return undefined;
  return / in (\/.*)$/m.exec(readFileSync(text, "utf8"))?.[1];
}

/** Folders in which pip puts CUDA's libraries beside a TensorFlow. */
function wheelFolders(nativeFolder: string): string[] {
  const roots = [join(nativeFolder, "python", "nvidia")];
  const elsewhere = tensorflowElsewhere(nativeFolder);
  if (elsewhere !== undefined) roots.push(join(dirname(elsewhere), "nvidia"));
  return roots
    .filter((root) => existsSync(root))
    .flatMap((root) => readdirSync(root).map((name) => join(root, name, "lib")));
}

/** @param nativeFolder where `setup native` put the engine */
export function cudaFacts(nativeFolder: string): CudaFacts {
  const folders = [...wheelFolders(nativeFolder), ...linkerFolders()];
  return {
    card: ["/dev/nvidia0", "/dev/dxg"].some((path) => existsSync(path)),
    has: (library) => linkerFinds(library, linkerList, folders),
  };
}

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
const tensorflowTypes = { float: 1, int32: 3, int8: 6, bfloat16: 14, half: 19 };

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
  f16: { type: tensorflowTypes.half, perWord: 2 },
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

/** Whether TensorFlow computes on a card; it was loaded. */
export function usesCard(): boolean {
  const backend: object = findBackend("tensorflow");
  return "isUsingGpuDevice" in backend && backend.isUsingGpuDevice === true;
}

/** Gives Node back the two functions that tfjs-node 4.22 calls and Node 23 took away. */
function bringBackOldUtil(): void {
  const old = { isNullOrUndefined: (x: unknown) => x === null || x === undefined, isArray: Array.isArray };
  for (const [name, value] of Object.entries(old))
    if (!(name in util)) Object.assign(util, { [name]: value });
}

/** What a library of `setup native` does with stderr. */
interface QuietLibrary {
  mute(): void;
  unmute(): void;
}

/** The one in a folder; of an engine that was built before there was one, nothing. */
function quietIn(folder: string): QuietLibrary {
  if (!existsSync(quietLibrary(folder))) return { mute() {}, unmute() {} };
  const library: QuietLibrary = createRequire(import.meta.url)(quietLibrary(folder));
  return library;
}

/**
 * tfjs-node has a tfjs-core of its own, which warns that the platform is set already (both share one engine), and
 * TensorFlow's libraries log as they load.
 */
async function importQuietly(path: string, { mute, unmute }: QuietLibrary): Promise<void> {
  const { warn } = console;
  console.warn = () => {};
  mute();
  try {
    await import(pathToFileURL(path).href);
  } finally {
    unmute();
    console.warn = warn;
  }
}

/** The tfjs-node to load, and what is said of it. @throws Error where there is none */
function findNative(packages: readonly string[], folder: string): { path: string; text: string } {
  const built = join(addonPackage(folder), "dist", "index.js");
  if (existsSync(built))
    return { path: built, text: readFileSync(join(folder, "tensorflow.txt"), "utf8").trim() };
  const path = packages.map(findPackage).find((found) => found !== undefined);
  if (path === undefined) throw new Error("not installed");
  return { path, text: "TensorFlow as @tensorflow/tfjs-node brings it" };
}

/**
 * Loads tfjs-node and makes it a back end named "tensorflow": the one in `folder` (default: what `setup native`
 * built), or else one of `packages` that is installed.
 * @throws Error where there is none, or where a card is asked for and TensorFlow finds none
 */
export async function loadNative(
  packages: readonly string[],
  device: "gpu" | "cpu" | "any",
  folder = nativeFolder(),
): Promise<Loaded> {
  // Read by TensorFlow when it loads: its start-up log goes to stderr unless told not to, and it takes all of a
  // card's memory unless told to grow.
  process.env["TF_CPP_MIN_LOG_LEVEL"] ??= "2";
  process.env["TF_FORCE_GPU_ALLOW_GROWTH"] ??= "true";
  if (device === "cpu") process.env["CUDA_VISIBLE_DEVICES"] ??= "-1";
  bringBackOldUtil();
  const { path, text } = findNative(packages, folder);
  await importQuietly(path, quietIn(folder));
  registerNativeKernels();
  if (device === "gpu" && !usesCard()) throw cudaProblem(cudaFacts(folder));
  return { backend: "tensorflow", text };
}
