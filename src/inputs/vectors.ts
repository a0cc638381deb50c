/** The task vectors of a run: treated where that is asked for, placed where they fit, and loaded there. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { EngineName } from "../backend/index.js";
import type { Member } from "../checkpoint/family.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { UserError } from "../errors.js";
import { names } from "../folder/files.js";
import { columnOf, type Column } from "../merge/source.js";
import { loadTaskVectors, type TaskVectors } from "../merge/vectors.js";
import { memoryText } from "../report/memory.js";
import type { TaskExamples } from "./data.js";
import { stepShape } from "./data.js";
import type { Recipe } from "./locate.js";
import type { OpenedModels } from "./models.js";
import { planMemory, shapeOf, type MemoryPlan } from "./placement.js";
import type { Resources } from "./resources.js";
import { treatExperts } from "./treat.js";

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
export async function columnsOf(
  { family, factored, canonical }: OpenedModels,
  recipe: Recipe,
  options: MergeOptions,
  out: string,
  hooks: MergeHooks,
  resources: Resources,
): Promise<Columns> {
  const make = (members: readonly Member[]): readonly Column[] =>
    recipe.columns?.(members) ?? members.map(columnOf);
  if (options.treat === "none") {
    const columns = make(family.experts);
    const seen = factored && { base: factored.base, columns: make(factored.experts) };
    return { columns, seen: seen ?? { base: family.base, columns }, treated: false };
  }
  const treated = await treatExperts(out, family, options, canonical, hooks);
  resources.add(async () => {
    for (const { checkpoint } of treated) await checkpoint.close();
    await rm(join(out, names.treated), { recursive: true, force: true });
  });
  const columns = make(treated);
  return { columns, seen: { base: family.base, columns }, treated: true };
}

/** Predicts what every placement takes on the running engine, chooses one, and says so. */
export async function placeVectors(
  { family, model }: OpenedModels,
  { base, columns }: Columns["seen"],
  tasks: readonly TaskExamples[],
  engine: EngineName,
  options: MergeOptions,
  request: Recipe["request"] = options,
): Promise<MemoryPlan> {
  return planMemory(
    { ...shapeOf(model, base, columns.length), files: family.experts.length },
    stepShape(tasks, options),
    engine,
    {
      packing: options.pack,
      density: options.density,
      request,
      memoryBudget: options.memoryBudget,
    },
  );
}

/** A plan for a reader. */
export const planText = (plan: MemoryPlan): string =>
  memoryText({
    ...plan,
    what: `memory of a step of ${plan.step.tokens} tokens, task vectors as ${plan.options.packing}:`,
    rows: plan.predictions,
  });

/** Loads the task vectors where the plan puts them. @throws UserError where no expert differs from the base */
export async function loadVectors(
  { model, family }: OpenedModels,
  { base, columns }: Columns["seen"],
  plan: MemoryPlan,
  options: MergeOptions,
  hooks: Pick<MergeHooks, "note" | "progress">,
): Promise<TaskVectors> {
  const vectors = await loadTaskVectors({ base, columns }, [...model.parameters.keys()], {
    granularity: options.granularity,
    packing: options.pack,
    density: options.density,
    residency: plan.chosen.residency,
    tables: model.tables,
    onTensor: (done, of) => hooks.progress("task vectors", done, of),
  });
  const [layers, experts] = [vectors.layers.length, columns.length];
  if (layers === 0) {
    vectors.dispose();
    throw new UserError(
      `${family.base.checkpoint.folder}: no expert differs from the base; there is nothing to merge`,
    );
  }
  hooks.note(`${layers} layers × ${experts} experts = ${layers * experts} coefficients`);
  return vectors;
}
