/** A run's tasks: those that a registry names, and others as their experts and data tell. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { readJsonObject } from "../checkpoint/files.js";
import { fileNames, headFolder } from "../folder/files.js";
import { inferTask } from "../tasks/infer.js";
import { hasData, loadTasks, pickTasks, type Task } from "../tasks/registry.js";
import type { Source } from "./locate.js";

/** What is known of the models that a run's tasks belong to. */
export interface TaskKnowledge {
  /** Where a task's expert lies, with its config; undefined where there is none. */
  expertOf(id: string): string | undefined;
  readonly note: (message: string) => void;
}

/**
 * The tasks of a run. What no registry names is found out about, where the data folder has it.
 * @throws UserError naming the nearest known task, or what cannot be told
 */
export async function tasksOf(
  data: string,
  ids: readonly string[],
  { expertOf, note }: TaskKnowledge,
): Promise<Task[]> {
  const registry = await loadTasks(data);
  for (const id of ids) {
    if (registry.has(id) || !hasData(data, id)) continue;
    const expert = expertOf(id);
    const path = expert === undefined ? undefined : join(expert, fileNames.config);
    const config = path !== undefined && existsSync(path) ? await readJsonObject(path) : undefined;
    const { task, told } = await inferTask(id, data, config);
    note(told);
    registry.set(id, task);
  }
  return pickTasks(registry, ids);
}

/** Where a run's experts lie: of an earlier merge, what it kept of each task's expert. */
export const expertsIn =
  (sources: readonly Source[]) =>
  (id: string): string | undefined => {
    const source = sources.find(({ tasks }) => tasks.includes(id));
    if (!source?.merged) return source?.folder;
    return headFolder(source.folder, id);
  };
