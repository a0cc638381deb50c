/** The models that a run merges: opened, checked from their headers, and seen as the model that is trained on. */
import {
  type Family,
  type Member,
  adapterOf,
  inheriting,
  openFamily,
  openMember,
} from "../checkpoint/family.js";
import { entryOf } from "../checkpoint/folder.js";
import { UserError } from "../errors.js";
import type { HeadNames, Model, ModelFamily } from "../models/types.js";
import { isFloat } from "../tensor/dtype.js";
import type { Task } from "../tasks/registry.js";
import { checkTogether } from "../checkpoint/belonging.js";
import { withoutTableCopies } from "../checkpoint/tied.js";
import { withOneVocabulary } from "../checkpoint/vocabulary.js";
import { adapterForm } from "../checkpoint/write-form.js";
import { factoredFamily, type FactoredFamily } from "../merge/factored.js";
import { withAdapters } from "../models/adapters.js";
import { fileNames } from "../folder/files.js";
import { at } from "../at.js";
import { hasHead, headNamesFor } from "../models/layers.js";
import {
  areEmbedded,
  headKind,
  openHead,
  buildModel,
  headForm,
  outputLayerOf,
  readFamily,
  startFor,
} from "./prepare.js";
import type { RunOpening } from "./opening.js";
import { taskConfig } from "./task-config.js";
import { hasTextTower, zeroShotHead } from "./zero-shot.js";

const show = (shape: readonly number[]): string => `[${shape.join(", ")}]`;

function checkTensor(member: Member, name: string, expected: readonly number[], reference: string): void {
  const {
    checkpoint: { folder, entry },
    label,
    actual,
  } = member;
  const stored = actual.get(name);
  const found = stored === undefined ? undefined : entry(stored);
  if (!found)
    throw new UserError(`${folder} (${label}): there is no tensor "${name}", which the model needs`);
  if (found.shape.join() !== expected.join()) {
    throw new UserError(
      `${folder} (${label}): "${stored}" is ${show(found.shape)}, ${reference} has ` +
        `${show(expected)}; was it fine-tuned from this base?`,
    );
  }
  if (!isFloat(found.dtype))
    throw new UserError(
      `${folder} (${label}): "${stored}" is ${found.dtype}; a weight must be F32, F16 or BF16`,
    );
}

/**
 * Models without what a family's forward leaves out: second copies of the table of embeddings, where that is the output
 * layer too; what is 0 stays.
 * @throws UserError where what is left out is not what the forward takes it for
 */
export async function withoutUnread(
  { zeros = [] }: ModelFamily,
  { parameters, scores }: Model,
  members: readonly Member[],
): Promise<Member[]> {
  for (const { actual, checkpoint, weights } of members) {
    for (const name of zeros.filter((one) => actual.has(one))) {
      const { values } = await weights(name);
      if (values.some((value) => value !== 0))
        throw new UserError(
          `${checkpoint.folder}: "${name}" is not 0, and what it adds is not supported; train-merge merge merges it ` +
            "without training",
        );
    }
  }
  return scores ? withoutTableCopies(members, (name) => parameters.has(name)) : [...members];
}

/**
 * Checks, from headers alone, that base and experts hold every tensor the model reads in the shapes its config says.
 * Tensors beyond those (buffers such as position_ids, a language-model head) stay as the base has them.
 */
export function checkFamily(family: Family, model: Model): void {
  for (const [name, shape] of model.parameters) checkTensor(family.base, name, shape, "its config.json");
  for (const expert of family.experts)
    for (const [name, shape] of model.parameters) checkTensor(expert, name, shape, "the base");
}

/**
 * Number of outputs that a task's head must have: one for each label; two for a span; one, where endings are scored
 * and for a number.
 */
export function outputsOf({ kind, labels }: Task): number {
  if (kind === "span") return 2;
  return labels?.length ?? 1;
}

const outputsText = ({ kind, labels }: Task): string => {
  if (labels) return `${labels.length} outputs (${labels.join(", ")})`;
  if (kind === "span") return "2 outputs (first and last token)";
  return `1 output (a ${kind === "choice" ? "choice" : "number"})`;
};

/** Checks that an expert carries a head of the task's kind, where the model needs one. */
export function checkHead(expert: Member, names: HeadNames | undefined, model: Model, task: Task): void {
  if (!names) return;
  const head = headNamesFor(names, headKind(task), (name) => expert.actual.has(name));
  const stored = expert.actual.get(head.weight);
  if (stored === undefined) {
    throw new UserError(
      `${expert.checkpoint.folder} (${task.id}): there is no head ("${head.weight}"); save the ` +
        "expert with the head it was fine-tuned with",
    );
  }
  const { shape } = entryOf(expert.checkpoint, stored);
  const outputs = outputsOf(task);
  if (shape.join() !== [outputs, model.width].join()) {
    throw new UserError(
      `${expert.checkpoint.folder} (${task.id}): its head is ${show(shape)}; ${task.id} needs ` +
        `${outputsText(task)} of width ${model.width}`,
    );
  }
  if (head.bias !== undefined) checkTensor(expert, head.bias, [outputs], `${task.id}'s head`);
  if (head.dense === undefined) return;
  if (!expert.actual.has(`${head.dense}.weight`))
    throw new UserError(
      `${expert.checkpoint.folder} (${task.id}): neither it nor the base has "${head.dense}", the layer in front of ` +
        "its head, so that it was a random one in training and is lost; train it again and save it with the head " +
        '(PEFT: modules_to_save=["pooler", "classifier"])',
    );
  checkTensor(expert, `${head.dense}.weight`, [model.width, model.width], `${task.id}'s head`);
  checkTensor(expert, `${head.dense}.bias`, [model.width], `${task.id}'s head`);
}

/** Checks that the tokenizer's ids fit the embedding. */
export function checkVocabulary(
  folder: string,
  tokenizer: { vocabulary?: number | undefined },
  model: Model,
): void {
  if (tokenizer.vocabulary !== undefined && tokenizer.vocabulary > model.vocabulary) {
    throw new UserError(
      `${folder}: tokenizer.json has ${tokenizer.vocabulary} tokens, the model's vocabulary ` +
        `${model.vocabulary}; they do not belong together`,
    );
  }
}

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
export async function openModels({
  options,
  recipe,
  tasks,
  resources,
  hooks,
}: RunOpening): Promise<OpenedModels> {
  const { write, treat } = options;
  const { locations } = recipe;
  const modelFamily = await readFamily(locations.base);
  const { canonical, head: names, outputLayers, inherited = [] } = modelFamily;
  const opened = await openFamily(
    await openMember("base", locations.base, canonical, options),
    locations.sources.map(({ label, folder }) => ({ task: label, folder })),
    canonical,
    options,
  );
  resources.add(opened.close);
  const inherit = opened.experts.map((expert) => inheriting(expert, opened.base, inherited, canonical));
  const { members: experts, notes: ofTokens } = await withOneVocabulary(inherit, opened.base);
  const given = { ...opened, experts };
  const embedded = areEmbedded(tasks, outputLayers);
  const outputLayer = embedded ? "pool" : outputLayerOf(outputLayers, names, given, locations);
  const hasHead = outputLayer !== "score" && !embedded;
  const head = hasHead ? await headForm(modelFamily, given, { ...locations, tasks }) : undefined;
  const withoutPooler = embedded || head?.dense !== undefined;
  if (head && head.dense !== undefined && head.dense === modelFamily.pooler)
    hooks.note(`${head.dense} is each task's own, as its head is: not every model has one`);
  const plain = buildModel(opened.base, outputLayer, withoutPooler);
  // An adapter has its base's.
  const whole = experts.filter((one) => adapterOf(one) === undefined);
  const [base = opened.base] = await withoutUnread(modelFamily, plain, [opened.base, ...whole]);
  const family = { ...given, base };
  checkFamily(family, plain);
  const together = await checkTogether({ first: family.base, members: experts, base: family.base }, options);
  const notes = [...ofTokens, ...together];
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
    head,
    canonical,
    notes,
  };
}

/** An adapter's head, with the task's labels where the adapter has no config of its own to say them. */
function withLabels(own: Member, task: Task): Member {
  if (adapterOf(own) === undefined || own.checkpoint.files.includes(fileNames.config)) return own;
  return { ...own, checkpoint: { ...own.checkpoint, config: taskConfig(own.checkpoint.config, task) } };
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
  const isOwn = head !== undefined && hasHead(head, (name) => own.actual.has(name));
  if (head && isOwn) return withLabels(own, task);
  if (!head || !hasTextTower(family.base)) return own;
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
