import type { TensorInfo } from "@tensorflow/tfjs-core";
import type { KernelCall } from "./kernels.js";

/** A program as tfjs's WebGPU back end takes it (its webgpu_program.d.ts). */
interface Program {
  variableNames: string[];
  outputShape: number[];
  uniforms: string;
  workgroupSize: [number, number, number];
  dispatchLayout: { x: number[] };
  dispatch: [number, number, number];
  shaderKey: string;
  getUserCode(): string;
}
interface WebgpuBackend {
  runWebGPUProgram(
    program: Program,
    inputs: TensorInfo[],
    dtype: "float32" | "int32",
    uniforms: { type: "int32" | "float32"; data: number[] }[],
  ): TensorInfo;
}
export type WebgpuCall = KernelCall<WebgpuBackend>;

/** Invocations of a group. */
export const groupSize = 64;

/** One of our own programs. */
export interface OwnProgram {
  /** Programs of one name have one code. */
  readonly name: string;
  /** What it reads, by the names that its code has for them. */
  readonly inputs: readonly (readonly [name: string, tensor: TensorInfo])[];
  /** Numbers that its code knows as uniforms.NAME: i32 and f32. */
  readonly whole?: Readonly<Record<string, number>>;
  readonly reals?: Readonly<Record<string, number>>;
  readonly groups: number;
  readonly outputShape: number[];
  /** Of what it writes. Default: float32. */
  readonly dtype?: "float32" | "int32" | undefined;
  /** WGSL with fn main(index : i32), which is called once an invocation and writes `result`. */
  readonly code: string;
}

export function runProgram(
  { backend }: WebgpuCall,
  { name, inputs, whole = {}, reals = {}, groups, outputShape, dtype = "float32", code }: OwnProgram,
): TensorInfo {
  const declared = (numbers: Readonly<Record<string, number>>, type: string): string =>
    Object.keys(numbers)
      .map((key) => `${key} : ${type},`)
      .join(" ");
  return backend.runWebGPUProgram(
    {
      variableNames: inputs.map(([variable]) => variable),
      outputShape,
      uniforms: `${declared(whole, "i32")} ${declared(reals, "f32")}`,
      workgroupSize: [groupSize, 1, 1],
      dispatchLayout: { x: [0] },
      dispatch: [groups, 1, 1],
      shaderKey: `trainMerge_${name}`,
      getUserCode: () => code,
    },
    inputs.map(([, tensor]) => tensor),
    dtype,
    [
      ...Object.values(whole).map((value) => ({ type: "int32" as const, data: [value] })),
      ...Object.values(reals).map((value) => ({ type: "float32" as const, data: [value] })),
    ],
  );
}
