import type { MergeHooks, MergeOptions } from "../config/options.js";
import type { Recipe } from "./locate.js";
import type { Task } from "../tasks/registry.js";
import type { Resources } from "../checkpoint/files.js";

/** A run whose inputs are being opened: what every step is given. */
export interface RunOpening {
  readonly recipe: Recipe;
  readonly options: MergeOptions;
  readonly tasks: readonly Task[];
  /** The data folder. */
  readonly data: string;
  /** The output folder. */
  readonly out: string;
  readonly hooks: MergeHooks;
  readonly resources: Resources;
}
