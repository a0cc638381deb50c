/**
 * Everything a run reads, in steps: find (locate.ts), open and check (models.ts), prepare data (data.ts), place and
 * load the task vectors (vectors.ts). A job that needs less takes the steps that it needs.
 */
import { watchMemory, type EngineName } from "../backend/index.js";
import type { Member } from "../checkpoint/family.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import type { MergeContext } from "../evaluate/baselines.js";
import type { InputHash } from "../report/card.js";
import { openOutput } from "../folder/output.js";
import type { TaskVectors } from "../merge/vectors.js";
import { loadTasks, pickTasks } from "../tasks/registry.js";
import { checkVocabulary } from "./check.js";
import { hashesOf, prepareTasks, type TaskExamples } from "./data.js";
import { foldersOf, shippedData, type Locations, type Recipe } from "./locate.js";
import type { RunOpening } from "./opening.js";
import { openHeads, openModels, type OpenedModels } from "./models.js";
import type { MemoryPlan } from "./placement.js";
import { encoderFor, startFor } from "./prepare.js";
import { Resources } from "./resources.js";
import { makeColumns, loadVectors, placeVectors, planText, type Columns } from "./vectors.js";

/** Everything a run reads, checked and on the device. */
export interface Inputs extends OpenedModels, Omit<Columns, "seen"> {
  readonly name: string;
  readonly locations: Locations;
  readonly data: string;
  readonly engine: EngineName;
  /** Each task's head, as a checkpoint that holds one. */
  readonly heads: readonly Member[];
  readonly tasks: readonly TaskExamples[];
  readonly hashes: readonly InputHash[];
  readonly plan: MemoryPlan;
  readonly vectors: TaskVectors;
  dispose(): Promise<void>;
}

/** What an evaluation or a training takes of a run's inputs. */
export const mergeContextOf = ({
  model,
  vectors,
  plan,
}: Pick<Inputs, "model" | "vectors" | "plan">): MergeContext => ({
  model,
  vectors,
  blockwise: plan.chosen.blockwise,
  microBatch: plan.step.microBatch,
});

/**
 * Finds, opens and checks every input, headers before bytes; then starts the engine and loads. Nothing
 * is written to `out` before all of it was checked.
 */
export async function openInputs(
  options: MergeOptions,
  recipe: Recipe,
  out: string,
  hooks: MergeHooks,
): Promise<Inputs> {
  const { locations, name } = recipe;
  const data = options.data ?? shippedData;
  const tasks = pickTasks(await loadTasks(data), options.tasks);
  const resources = new Resources();
  const opening: RunOpening = { recipe, options, data, out, hooks, resources };
  try {
    const models = await openModels(opening);
    const { model } = models;
    const heads = await openHeads(opening, models, tasks);
    const encoder = await encoderFor(locations.base, model, options);
    checkVocabulary(locations.base, encoder, model);
    await openOutput(out, foldersOf(locations));

    const engine = await startFor(model, options.backend);
    watchMemory().reset();
    const labels = locations.sources.map(({ label }) => label).join(", ");
    hooks.note(`engine ${engine}; base ${locations.base}; experts ${labels}; output ${out}`);
    const sources = { tasks, heads, encoder };
    const prepared = await prepareTasks(opening, models, sources);
    const hashes = await hashesOf(opening, models, sources, prepared);

    const { seen, ...columns } = await makeColumns(opening, models);
    const plan = await placeVectors(opening, models, seen, { tasks: prepared, engine });
    hooks.note(planText(plan));
    const vectors = await loadVectors(opening, models, seen, plan);
    return {
      ...models,
      ...columns,
      name,
      locations,
      data,
      engine,
      heads,
      tasks: prepared,
      hashes,
      plan,
      vectors,
      dispose: () => resources.close(),
    };
  } catch (error) {
    await resources.close();
    throw error;
  }
}
