import type { MergeHooks, MergeOptions } from "../config/options.js";
import type { InputHash } from "../report/card.js";
import type { Task } from "../tasks/registry.js";
import type { FinetuneSettings } from "./types.js";

export interface LabOptions {
  readonly options: MergeOptions & { readonly data: string };
  readonly heldOut: readonly string[];
  readonly seeds: readonly number[];
  readonly finetuning: FinetuneSettings;
  /** Settings that the user gave. */
  readonly given: Readonly<Record<string, unknown>>;
  /** Where runs live: experiments may share them, and do nothing again that another did. */
  readonly runs: string;
}

/** What an experiment's numbers are made from, and what its merges took: filled as runs are done. */
export interface LabRecord {
  readonly inputs: Map<string, InputHash>;
  /** Of merges and searches, those of an earlier run too. */
  seconds: number;
}

/** What a lab works with. */
export interface LabContext extends LabOptions {
  /** All tasks that are known. */
  readonly registry: ReadonlyMap<string, Task>;
  readonly record: LabRecord;
  readonly hooks: MergeHooks;
}

/** Writes down what something was made from. */
export function noteInputs({ inputs }: LabRecord, hashes: readonly InputHash[]): void {
  for (const hash of hashes) inputs.set(`${hash.role}/${hash.file}/${hash.sha256}`, hash);
}
