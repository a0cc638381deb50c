/**
 * Everything a run reads, in steps: find (locate.ts), open and check (models.ts), prepare data (data.ts); then the task
 * vectors are treated where that is asked for, placed where they fit (placement.ts) and loaded there. A job that needs
 * less takes the steps that it needs.
 */
import { join } from "node:path";
import { watchMemory, type EngineName } from "../backend/index.js";
import type { Member } from "../checkpoint/family.js";
import { watchFiles, Resources } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { fileNames, stateFile } from "../folder/files.js";
import { columnOf, type Column } from "../merge/source.js";
import { loadTaskVectors, type TaskVectors } from "../merge/vectors.js";
import { placedText } from "../report/memory.js";
import { hashesOf, prepareTasks, type TaskExamples, expertsIn, tasksOf } from "./data.js";
import { openHeads, openModels, type OpenedModels, checkVocabulary } from "./models.js";
import type { RunOpening } from "./opening.js";
import { planMemory, shapeOf, stepShape, type MemoryPlan } from "./placement.js";
import type { BasePacking } from "../merge/packing.js";
import { blockRequest, type PlacementRequest } from "../plan/memory.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import type { MergeContext } from "../evaluate/baselines.js";
import type { InputHash } from "../report/card.js";
import { openOutput, removeScratch } from "../folder/output.js";
import { dataOf, foldersOf, type Locations, type Recipe } from "./locate.js";
import { encoderFor } from "./encoder.js";
import { startFor } from "./prepare.js";

/** What the coefficients are trained over. */
export interface Columns {
  /** The columns of the table, every expert as a model. */
  readonly columns: readonly Column[];
  /** The same as the model sees them: adapters beside their weights. Undefined: alike. */
  readonly seen: { readonly base: Member; readonly columns: readonly Column[] };
  /** Whether something was done to the task vectors: they are not the experts' own then. */
  readonly treated: boolean;
}

/** Treats the experts' task vectors where that is asked for, and makes the table's columns of them. */
export async function makeColumns(
  { recipe, options, out, hooks, resources }: RunOpening,
  opened: OpenedModels,
): Promise<Columns> {
  const { family, factored } = opened;
  const make = (members: readonly Member[]): readonly Column[] =>
    recipe.columns?.(members) ?? members.map(columnOf);
  const { base } = family;
  if (options.treat === "none") {
    const columns = make(family.experts);
    const seen = factored && { base: factored.base, columns: make(factored.experts) };
    return { columns, seen: seen ?? { base, columns }, treated: false };
  }
  // Only here: it brings every method and the threads with it.
  const { treatExperts } = await import("./treat.js");
  const treated = await treatExperts(out, opened, options, hooks);
  resources.add(async () => {
    for (const { checkpoint } of treated) await checkpoint.close();
    await removeScratch(join(out, fileNames.treated));
  });
  const columns = make(treated);
  return { columns, seen: { base, columns }, treated: true };
}

/** Where a base is rounded, it lives on the device: nowhere else is it kept so. @throws UserError for another place */
export function baseRequest(packBase: BasePacking, request: PlacementRequest): PlacementRequest {
  if (packBase === "f32" || packBase === "file") return request;
  if (request.residency === "host" || request.residency === "disk")
    throw new UserError(
      `--pack-base ${packBase} is for a base on the device, and with --residency ${request.residency} it lies as its ` +
        "file has it: leave out one of the two",
    );
  return { ...request, residency: "device" };
}

/** Predicts what every placement takes on the running engine, and chooses one. */
export function placeVectors(
  { recipe, options }: RunOpening,
  { family, model }: OpenedModels,
  { base, columns }: Columns["seen"],
  { tasks, engine }: { readonly tasks: readonly TaskExamples[]; readonly engine: EngineName },
): Promise<MemoryPlan> {
  const shape = { ...shapeOf(model, base, columns.length), files: family.experts.length };
  return planMemory(shape, stepShape(tasks, options), engine, {
    packing: options.pack,
    basePacking: options.packBase,
    density: options.density,
    request: baseRequest(
      options.packBase,
      blockRequest(options.loss === "block-distillation", recipe.request ?? options),
    ),
    memoryBudget: options.memoryBudget,
  });
}

/** Loads the task vectors where the plan puts them. @throws UserError where no expert differs from the base */
export async function loadVectors(
  { options, hooks, resources }: RunOpening,
  { model, family }: OpenedModels,
  { base, columns }: Columns["seen"],
  plan: MemoryPlan,
): Promise<TaskVectors> {
  const vectors = await loadTaskVectors({ base, columns }, [...model.parameters.keys()], {
    granularity: options.granularity,
    packing: options.pack,
    basePacking: options.packBase,
    density: options.density,
    residency: plan.chosen.residency,
    tables: model.tables,
    holdsTables: plan.chosen.holdsTables,
    onTensor: (done, of) => hooks.progress("task vectors", done, of),
  });
  resources.add(() => vectors.dispose());
  const [layers, experts] = [vectors.layers.length, columns.length];
  if (layers === 0)
    throw new UserError(
      `${family.base.checkpoint.folder}: no expert differs from the base; there is nothing to merge`,
    );
  hooks.note(`${layers} layers × ${experts} experts = ${layers * experts} coefficients`);
  return vectors;
}

/** Everything a run reads, checked and on the device. */
export interface Inputs extends OpenedModels, Omit<Columns, "seen"> {
  readonly name: string;
  readonly locations: Locations;
  readonly data: string;
  readonly engine: EngineName;
  /** Each task's head, as a checkpoint that holds one. */
  readonly heads: readonly Member[];
  readonly tasks: readonly TaskExamples[];
  /** What conversations are put into words by, where a task is of them. */
  readonly chatTemplate: string | undefined;
  readonly hashes: readonly InputHash[];
  readonly plan: MemoryPlan;
  readonly vectors: TaskVectors;
  /** @throws UserError where a file of base or experts was changed since it was opened */
  checkFiles(): Promise<void>;
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
  const data = await dataOf(options);
  const knowledge = { expertOf: expertsIn(locations.sources), note: hooks.note, columns: options.columns };
  const tasks = await tasksOf(data, options.tasks, knowledge);
  const resources = new Resources();
  const opening: RunOpening = { recipe, options, tasks, data, out, hooks, resources };
  try {
    const models = await openModels(opening);
    const { model, family } = models;
    const checkFiles = await watchFiles([family.base, ...family.experts].map(({ checkpoint }) => checkpoint));
    const heads = await openHeads(opening, models, tasks);
    const encoder = await encoderFor(
      locations.base,
      model,
      options,
      locations.sources.map(({ folder }) => folder),
    );
    checkVocabulary(locations.base, encoder, model);
    const goesOn = options.resume && stateFile.exists(out);
    await openOutput(out, foldersOf(locations), goesOn || options.overwrite);

    const engine = await startFor(model, options.backend);
    watchMemory().reset();
    const labels = locations.sources.map(({ label }) => label).join(", ");
    hooks.note(`engine ${engine}; base ${locations.base}; experts ${labels}; output ${out}`);
    const sources = { tasks, heads, encoder };
    const prepared = await prepareTasks(opening, models, sources);
    const hashes = await hashesOf(opening, models, sources, prepared);

    const { seen, ...columns } = await makeColumns(opening, models);
    const plan = await placeVectors(opening, models, seen, { tasks: prepared, engine });
    hooks.note(placedText(plan.chosen));
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
      chatTemplate: tasks.some(({ kind }) => kind === "chat") ? encoder.chatTemplate : undefined,
      hashes,
      plan,
      vectors,
      checkFiles,
      dispose: () => resources.close(),
    };
  } catch (error) {
    await resources.close();
    throw error;
  }
}
