/** The examples that a run trains and tests on, and the hashes of everything that its numbers depend on. */
import { at } from "../at.js";
import type { Member } from "../checkpoint/family.js";
import type { MergeOptions } from "../config/options.js";
import { UserError } from "../errors.js";
import type { PreparedTask } from "../evaluate/evaluate.js";
import type { InputHash } from "../report/card.js";
import { rowTokens } from "../models/types.js";
import type { StepShape } from "../plan/shape.js";
import type { Encoder } from "../tasks/encoders.js";
import type { Task } from "../tasks/registry.js";
import type { TaskData } from "../tasks/split.js";
import { usesLabels } from "../train/losses.js";
import type { OpenedModels } from "./models.js";
import type { RunOpening } from "./opening.js";
import { disposeHead, loadHead, prepareTask } from "./prepare.js";
import { hashInputs } from "./record.js";

/** A task's examples, encoded, its head on the device, and the files that they came from. */
export type TaskExamples = PreparedTask & Pick<TaskData, "sources">;

/** What examples are made of. */
export interface TaskSources {
  readonly tasks: readonly Task[];
  /** Each task's head, as a checkpoint that holds one. */
  readonly heads: readonly Member[];
  readonly encoder: Encoder;
}

/** Draws and encodes every task's examples, and loads its head. The engine must run. */
export async function prepareTasks(
  { options, data, hooks, resources }: RunOpening,
  { head }: OpenedModels,
  { tasks, heads, encoder }: TaskSources,
): Promise<TaskExamples[]> {
  const { valPerTask, seed, split, loss } = options;
  const draw = { data, valPerTask, seed, split };
  const prepared: TaskExamples[] = [];
  for (const [i, task] of tasks.entries()) {
    const member = at(heads, i);
    const loaded = await loadHead(member, head);
    resources.add(() => disposeHead(loaded));
    const ready = await prepareTask(task, { head: loaded, config: member.checkpoint.config }, encoder, draw);
    hooks.note(examplesText(ready, valPerTask));
    prepared.push(ready);
  }
  const free = prepared.find(({ kind }) => kind === "generate");
  if (free && !usesLabels(loss))
    throw new UserError(
      `${free.id}: --loss ${loss} needs classes or answers to choose from, and the task asks for a ` +
        "generated text; use --loss cross-entropy",
    );
  return prepared;
}

function examplesText({ id, validation, test, sources }: TaskExamples, asked: number): string {
  const fewer = validation.length < asked ? `, fewer than --val-per-task ${asked}` : "";
  return (
    `${id}: ${validation.length} validation examples from ${sources.validation.name}${fewer}; ` +
    `${test.length} test examples from ${sources.test.name}`
  );
}

/** Hashes of models, tokenizer, prompts and data. */
export function hashesOf(
  { recipe, data }: RunOpening,
  { family }: OpenedModels,
  { tasks, encoder }: TaskSources,
  prepared: readonly TaskExamples[],
): Promise<InputHash[]> {
  const { sources } = recipe.locations;
  return hashInputs({ family, sources, data, tasks: prepared, prompts: encoder.prompts?.(tasks) });
}

/** The most that one step can have to do: every task's longest examples in one batch. */
export function stepShape(
  tasks: readonly PreparedTask[],
  {
    batchSize,
    batchesPerStep,
    microBatch,
  }: Pick<MergeOptions, "batchSize" | "batchesPerStep" | "microBatch">,
): StepShape {
  let tokens = 0;
  let length = 0;
  for (const { validation } of tasks) {
    const sizes = validation.map(({ rows }) => rowTokens(...rows)).sort((a, b) => b - a);
    tokens += sizes.slice(0, batchSize * batchesPerStep).reduce((sum, size) => sum + size, 0);
    length = Math.max(length, ...validation.map((example) => example.length));
  }
  return { tokens, microBatch, length };
}
