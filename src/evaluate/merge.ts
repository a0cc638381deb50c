import type { Table } from "../merge/table.js";
import type { TaskVectors } from "../merge/vectors.js";
import type { Model } from "../models/types.js";

/** A merge as it is measured: a family, a coefficient table, and whether it runs a block at a time. */
export interface Merge {
  readonly model: Model;
  readonly vectors: TaskVectors;
  readonly table: Table;
  readonly blockwise?: boolean | undefined;
  /** Tokens that share one pass through the model. */
  readonly microBatch?: number | undefined;
}
