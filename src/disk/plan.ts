import type { Ref } from "../checkpoint/safetensors.js";
import type { ParameterValues } from "../methods/types.js";
import type { DType } from "../tensor/dtype.js";

/** A merge from disk to disk as plain data: what each tensor of the result is made of, and where that lies. */
export interface MergePlan {
  /** Its name in methods/index.ts. */
  readonly method: string;
  /** What the inputs are called, in order. */
  readonly labels: readonly string[];
  readonly tensors: readonly PlannedTensor[];
}

export interface PlannedTensor {
  /** What it is called in the result. */
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Taken over as it is; nothing is merged. */
  readonly copy?: Ref | undefined;
  /** Of floats; undefined where the merge has no base. */
  readonly base?: Ref | undefined;
  readonly inputs: readonly Ref[];
  /** What this tensor's inputs are called, where they are not the plan's. */
  readonly labels?: readonly string[] | undefined;
  /** The method's parameters for this tensor. */
  readonly values: ParameterValues;
  /** One an input, of float32: of the tensor's own size (fisher) or square (gram). */
  readonly statistics?: readonly Ref[] | undefined;
  /** Rows of a square statistic. */
  readonly statisticSize?: number | undefined;
  /** Stored [in, out]. */
  readonly transposed?: boolean | undefined;
}
