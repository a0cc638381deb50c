import type { Settings } from "./schema.js";
import type { ResultRow } from "../report/rows.js";
import type { TrainOptions, TrainRecord } from "../train/loop.js";

/** What training takes of a run's settings: all that it knows of is a setting, or this does not compile. */
type TrainingSettings = Pick<Settings, Exclude<keyof TrainOptions, "init" | "saveEvery">>;

/** The settings of a run, and what no option of the command line or a file says. */
export interface MergeOptions extends Settings, TrainingSettings {
  /** Models that came from the hub, as the user named them, and the commits that they are. */
  readonly hub?: Readonly<Record<string, string>> | undefined;
  readonly resume?: boolean | undefined;
  /** Writes TensorBoard's event file beside the results. */
  readonly tensorboard?: boolean | undefined;
  /** False measures the merge alone, without the methods that train nothing beside it. */
  readonly baselines?: boolean | undefined;
}

/** What a run tells whoever watches it. */
export interface MergeHooks {
  note(message: string): void;
  progress(phase: string, done: number, of: number): void;
  step(record: TrainRecord, tasks: readonly string[], steps: number): void;
  stopping(): boolean;
  /** Where the run writes, before it does. Of runs within runs the outer one's is told first. */
  begun?(out: string): void | Promise<void>;
  /** How long measuring the result is expected to take once all steps are taken, in seconds. */
  expected?(seconds: number): void;
}

export interface MergeResult {
  readonly out: string;
  readonly rows: readonly ResultRow[];
  readonly synthetic: boolean;
  /** False where the run was asked to stop: it can be resumed. */
  readonly finished: boolean;
}
