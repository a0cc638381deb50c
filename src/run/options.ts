import type { EngineName } from "../backend/index.js";
import type { Granularity } from "../merge/layers.js";
import type { Packing } from "../merge/packing.js";
import type { Residency } from "../merge/residency.js";
import type { ResultRow } from "../report/rows.js";
import type { FloatDType } from "../tensor/dtype.js";
import type { TrainOptions, TrainRecord } from "../train/loop.js";
import type { SplitName } from "../tasks/split.js";
import type { WriteForm } from "./write-form.js";

export interface MergeOptions extends Omit<TrainOptions, "saveEvery" | "init" | "microBatch"> {
  /** A coefficient, or `search`: the λ that task arithmetic finds on the validation examples. */
  readonly init: number | "search";
  readonly tasks: readonly string[];
  readonly family?: string | undefined;
  readonly base?: string | undefined;
  readonly experts?: readonly string[] | undefined;
  readonly data?: string | undefined;
  readonly out?: string | undefined;
  readonly valPerTask: number;
  /** What it is called in the results (default: supermerge). */
  readonly method?: "supermerge" | "adamerging" | "adamerging++" | undefined;
  readonly variant?: "original" | "fusion_bench" | undefined;
  /** What is done to the task vectors before coefficients are trained (default: nothing). */
  readonly treat?: "none" | "ties" | "dare" | undefined;
  /** Part that treating with TIES keeps. */
  readonly trim?: number | undefined;
  /** Chance to be dropped, treating with DARE. */
  readonly dareP?: number | undefined;
  readonly granularity: Granularity;
  readonly backend: EngineName | "auto";
  readonly maxLength: number;
  readonly split?: SplitName | undefined;
  readonly prompts?: string | undefined;
  readonly score?: "sum" | "mean" | undefined;
  readonly dtype: FloatDType | "auto";
  readonly shardSize: number;
  readonly residency: Residency | "auto";
  readonly blocks: "auto" | "on" | "off";
  readonly pack: Packing;
  readonly density: number;
  readonly memoryBudget?: number | undefined;
  readonly microBatch: number;
  /** What the result is written as (default: an adapter where all experts are adapters of one kind). */
  readonly write?: WriteForm | undefined;
  /** Models that came from the hub, as the user named them, and the commits that they are. */
  readonly hub?: Readonly<Record<string, string>> | undefined;
  readonly resume?: boolean | undefined;
  /** Writes TensorBoard's event file beside the results. */
  readonly tensorboard?: boolean | undefined;
  /** False measures the merge alone, without the methods that train nothing beside it. */
  readonly baselines?: boolean | undefined;
}

/** The exit code of a run that was asked to stop and left a state behind. */
export const stoppedCode = 130;

/** What a run tells whoever watches it. */
export interface MergeHooks {
  note(message: string): void;
  progress(phase: string, done: number, of: number): void;
  step(record: TrainRecord, tasks: readonly string[], steps: number): void;
  stopping(): boolean;
}

export interface MergeResult {
  readonly out: string;
  readonly rows: readonly ResultRow[];
  readonly synthetic: boolean;
  /** False where the run was asked to stop: it can be resumed. */
  readonly finished: boolean;
}
