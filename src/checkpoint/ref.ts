import type { DType } from "../tensor/dtype.js";

/** Where a tensor's bytes lie: `start` is the first. Plain data: it is handed to threads. */
export interface Ref {
  readonly path: string;
  readonly start: number;
  readonly dtype: DType;
  /** What an adapter makes of them. */
  readonly adapted?: Adapted | undefined;
  /** No file: every entry is this number. */
  readonly constant?: number | undefined;
}

/** Where an entry of a file's header lies. */
export const refIn = (path: string, { start, dtype }: Pick<Ref, "start" | "dtype">): Ref => ({
  path,
  start,
  dtype,
});

/** A matrix in a file. */
export interface MatrixRef extends Ref {
  readonly rows: number;
  readonly columns: number;
}

/** What an adapter makes of a weight as it is stored, [rows, width]. */
export type Adapted =
  /** LoRA: + scale · B A, B [out, rank], A [rank, in]; `transposed` where the weight is stored [in, out]. */
  | {
      readonly kind: "lora";
      readonly a: MatrixRef;
      readonly b: MatrixRef;
      readonly scale: number;
      readonly transposed: boolean;
      readonly width: number;
    }
  /** (IA)³: rows or columns multiplied by the numbers of a vector. */
  | {
      readonly kind: "ia3";
      readonly l: MatrixRef;
      readonly along: "rows" | "columns";
      readonly width: number;
    };
