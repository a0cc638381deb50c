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
import { startFor } from "../inputs/prepare.js";
import { hasTextTower, zeroShotHead } from "../inputs/zero-shot.js";
import { hasHead } from "../models/layers.js";
import { dataHash } from "../inputs/data.js";
import type { ResultRow } from "../report/rows.js";
import { evaluateFolder } from "../run/evaluate.js";
import { loadTasks, pickTasks, type Task } from "../tasks/registry.js";
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

/** An expert that has its task's head; where it is a tower alone, the head that the base's text tower makes. */
async function headOf(
  expert: Member,
  task: Task,
  { family: { base }, head, canonical, plain }: Inputs,
  { backend }: MergeOptions,
): Promise<Member> {
  if (!head || hasHead(head, (name) => expert.actual.has(name)) || !hasTextTower(base)) return expert;
  await startFor(plain, backend);
  return zeroShotHead(base, task, head, canonical);
}

/** Scores of a written merge on the tasks; a model with heads is given those of the tasks' own experts. */
export async function measureHeldOut(
  { out, inputs, options }: CompareContext,
  method: string,
  tasks: readonly string[],
): Promise<ResultRow[]> {
  const { data, plan, locations } = inputs;
  const folder = modelFolder({ out }, method);
  const known = pickTasks(await loadTasks(data), tasks);
  await withExpert(inputs, options, tasks, async (expert, i) =>
    writeHead(folder, await headOf(expert, at(known, i), inputs, options), inputs.head),
  );
  const settings = { ...options, folder, base: locations.base, data, tasks, placement: plan.chosen };
  return (await evaluateFolder(settings, method)).rows;
}
