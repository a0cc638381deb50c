/** The models that a run merges: opened, checked from their headers, and seen as the model that is trained on. */
import {
  adapterOf,
  inheriting,
  openFamily,
  openMember,
  type Family,
  type Member,
} from "../checkpoint/family.js";
import { checkTogether } from "../checkpoint/belonging.js";
import { adapterForm } from "../checkpoint/write-form.js";
import { UserError } from "../errors.js";
import { factoredFamily, type FactoredFamily } from "../merge/factored.js";
import { withAdapters } from "../models/adapters.js";
import type { HeadNames, Model } from "../models/types.js";
import type { Task } from "../tasks/registry.js";
import { at } from "../at.js";
import { checkFamily, checkHead } from "./check.js";
import { openHead, buildModel, outputLayerOf, readFamily, startFor } from "./prepare.js";
import type { RunOpening } from "./opening.js";
import { hasTextTower, zeroShotHead } from "./zero-shot.js";

/** Base and experts of a run. */
export interface OpenedModels {
  /** Every expert as a model: of an adapter, its products. */
  readonly family: Family;
  /** A model of the base's own tensors. */
  readonly plain: Model;
  /** With what adapters add, standing beside its weights, where the experts are adapters. */
  readonly model: Model;
  /** Base and experts as `model` sees them, where they are adapters. */
  readonly factored: FactoredFamily | undefined;
  /** What the heads' tensors are called; undefined for language models, which have none. */
  readonly head: HeadNames | undefined;
  /** A stored tensor's name under its family's. */
  canonical(name: string): string;
  /** What was not in order and was let through, or stands out; a line each. */
  readonly notes: readonly string[];
}

/**
 * Opens base and experts and checks them from their headers; of the weights, a sample is looked at.
 * @throws UserError naming the folder and the tensor that does not fit
 */
export async function openModels({ options, recipe, resources, hooks }: RunOpening): Promise<OpenedModels> {
  const { write, treat } = options;
  const { locations } = recipe;
  const { canonical, head: names, outputLayers, inherited = [] } = await readFamily(locations.base);
  const opened = await openFamily(
    await openMember("base", locations.base, canonical),
    locations.sources.map(({ label, folder }) => ({ task: label, folder })),
    canonical,
  );
  resources.add(opened.close);
  const experts = opened.experts.map((expert) => inheriting(expert, opened.base, inherited, canonical));
  const family = { ...opened, experts };
  const outputLayer = outputLayerOf(outputLayers, names, family, locations);
  const plain = buildModel(family.base, outputLayer);
  checkFamily(family, plain);
  const notes = await checkTogether({ first: family.base, members: experts, base: family.base }, options);
  notes.forEach(hooks.note);
  // Said before any work is done.
  if (write === "adapter" && treat !== "none")
    throw new UserError("--write adapter: treated task vectors are no adapters; use --write model");
  if (write === "adapter") adapterForm(experts, "adapter", true);
  const hasAdapters = experts.some((one) => adapterOf(one) !== undefined);
  const factored = treat === "none" && hasAdapters ? await factoredFamily(family, canonical) : undefined;
  return {
    family,
    plain,
    model: factored ? withAdapters(plain, factored.adapterModules) : plain,
    factored,
    head: outputLayer === "score" ? undefined : names,
    canonical,
    notes,
  };
}

/** A task's head: of an earlier merge, of the task's expert, or made from the base's text tower. */
async function openTaskHead(
  { recipe, options, resources }: RunOpening,
  { family, head, model, canonical }: OpenedModels,
  task: Task,
): Promise<Member> {
  const { sources } = recipe.locations;
  const index = sources.findIndex((source) => source.tasks.includes(task.id));
  const source = at(sources, index);
  if (source.merged && head) {
    const opened = await openHead(source.folder, task.id, canonical);
    resources.add(() => opened.checkpoint.close());
    return opened;
  }
  // A language model has no head: it is called after the task all the same.
  const own = { ...at(family.experts, index), label: task.id };
  if (!head || own.actual.has(head.weight) || !hasTextTower(family.base)) return own;
  await startFor(model, options.backend);
  return zeroShotHead(family.base, task, head, canonical);
}

/**
 * Every task's head, as a checkpoint that holds one, in the order of the tasks; checked. The engine is
 * started only where a head has to be computed.
 */
export async function openHeads(
  opening: RunOpening,
  models: OpenedModels,
  tasks: readonly Task[],
): Promise<Member[]> {
  const heads: Member[] = [];
  for (const task of tasks) {
    const head = await openTaskHead(opening, models, task);
    checkHead(head, models.head, models.model, task);
    heads.push(head);
  }
  return heads;
}
