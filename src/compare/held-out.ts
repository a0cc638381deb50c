/** Tests of merges on tasks that had no part in them. */
import { basename, join } from "node:path";
import { at } from "../at.js";
import { openExpert, type Member } from "../checkpoint/family.js";
import { sha256 } from "../checkpoint/files.js";
import type { MergeOptions } from "../config/options.js";
import type { InputHash } from "../report/card.js";
import { writeHead } from "../folder/output.js";
import { locate } from "../inputs/locate.js";
import type { Inputs } from "../inputs/open.js";
import { dataHash } from "../inputs/data.js";
import type { ResultRow } from "../report/rows.js";
import { evaluateFolder } from "../run/evaluate.js";
import { loadTasks, pickTasks } from "../tasks/registry.js";
import { loadTaskData } from "../tasks/split.js";
import { modelFolder, type CompareContext } from "./candidates.js";

/** Opens each task's own expert, whose head the merge is given; of models without heads, the base. */
async function withExpert<T>(
  { family: { base }, head, canonical }: Inputs,
  options: MergeOptions,
  tasks: readonly string[],
  run: (expert: Member, index: number) => Promise<T>,
): Promise<void> {
  // Where none are held out, nothing names experts for them.
  if (tasks.length === 0) return;
  if (!head) {
    for (const [i, label] of tasks.entries()) await run({ ...base, label }, i);
    return;
  }
  const { sources } = await locate({ ...options, tasks });
  for (const [i, label] of tasks.entries()) {
    const expert = await openExpert({ label, folder: at(sources, i).folder }, base, canonical, options);
    try {
      await run(expert, i);
    } finally {
      await expert.checkpoint.close();
    }
  }
}

/** Hashes of what such tests depend on: the tasks' data, and the experts that their heads are of. */
export async function heldOutHashes(
  inputs: Inputs,
  options: MergeOptions,
  tasks: readonly string[],
): Promise<InputHash[]> {
  const found: InputHash[] = [];
  const known = pickTasks(await loadTasks(inputs.data), tasks);
  await withExpert(inputs, options, tasks, async ({ checkpoint }, i) => {
    const task = at(known, i);
    const { test } = (await loadTaskData(inputs.data, task, options)).sources;
    const role = `${task.id}, held out`;
    found.push({ role: `${role}, data`, file: basename(test.name), sha256: await dataHash(test) });
    if (!inputs.head) return;
    for (const file of checkpoint.files)
      found.push({ role: `${role}, head`, file, sha256: await sha256(join(checkpoint.folder, file)) });
  });
  return found;
}

/** Scores of a written merge on the tasks; a model with heads is given those of the tasks' own experts. */
export async function measureHeldOut(
  { out, inputs, options }: CompareContext,
  method: string,
  tasks: readonly string[],
): Promise<ResultRow[]> {
  const { head, data, plan, locations } = inputs;
  const folder = modelFolder({ out }, method);
  await withExpert(inputs, options, tasks, (expert) => writeHead(folder, expert, head));
  const settings = { ...options, folder, base: locations.base, data, tasks, placement: plan.chosen };
  return (await evaluateFolder(settings, method)).rows;
}
