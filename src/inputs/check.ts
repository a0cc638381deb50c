import type { Family, Member } from "../checkpoint/family.js";
import { entryOf } from "../checkpoint/folder.js";
import { UserError } from "../errors.js";
import { languageModels } from "../models/index.js";
import type { HeadNames, Model } from "../models/types.js";
import { isFloat } from "../tensor/dtype.js";
import type { Encoder } from "../tasks/encoders.js";
import type { Task } from "../tasks/registry.js";

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
 * Checks, from headers alone, that base and experts hold every tensor the model reads in the shapes its config says.
 * Tensors beyond those (buffers such as position_ids, a language-model head) stay as the base has them.
 */
export function checkFamily(family: Family, model: Model): void {
  for (const [name, shape] of model.parameters) checkTensor(family.base, name, shape, "its config.json");
  for (const expert of family.experts)
    for (const [name, shape] of model.parameters) checkTensor(expert, name, shape, "the base");
}

/** Checks that a model takes what a task gives, and gives what it asks for. */
export function checkKind(task: Task, encoder: Pick<Encoder, "input" | "text">): void {
  const isImage = task.kind === "image";
  if (isImage !== (encoder.input === "image"))
    throw new UserError(
      `${task.id} is a task of ${isImage ? "images, and the model takes texts" : "texts, and the model takes images"}`,
    );
  if (task.kind === "generate" && !encoder.text)
    throw new UserError(
      `${task.id} asks for a generated text, and the model generates none: use a language model (${languageModels})`,
    );
}

/** Number of outputs that a task's head must have: one for each label; one, where endings are scored. */
export const outputsOf = ({ labels }: Task): number => labels?.length ?? 1;

/** Checks that an expert carries a head of the task's kind, where the model needs one. */
export function checkHead(expert: Member, head: HeadNames | undefined, model: Model, task: Task): void {
  if (!head) return;
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
    const kinds = task.labels ? `${outputs} outputs (${task.labels.join(", ")})` : "1 output (a choice)";
    throw new UserError(
      `${expert.checkpoint.folder} (${task.id}): its head is ${show(shape)}; ${task.id} needs ` +
        `${kinds} of width ${model.width}`,
    );
  }
  if (head.bias !== undefined) checkTensor(expert, head.bias, [outputs], `${task.id}'s head`);
  if (head.dense === undefined) return;
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

/**
 * The order of an expert's outputs in terms of the task's labels: `order[label]` is the output that stands for it.
 * Where the expert's config names its labels, names decide; where it has LABEL_0 …, the order is the
 * task's (undefined).
 * @throws UserError where the config has names of its own that are not the task's, or that name no order
 */
export function labelOrder(config: Readonly<Record<string, unknown>>, task: Task): number[] | undefined {
  const names = config["label2id"];
  if (!task.labels || typeof names !== "object" || names === null) return undefined;
  const entries = Object.entries(names).map(
    ([name, id]: [string, unknown]) => [name.toLowerCase(), Number(id)] as const,
  );
  if (entries.every(([name]) => /^label_\d+$/.test(name))) return undefined;
  const byName = new Map(entries);
  const order = task.labels.map((label) => byName.get(label.toLowerCase()) ?? NaN);
  if (task.labels.some((_, id) => !order.includes(id))) {
    throw new UserError(
      `the expert for ${task.id} has the labels ${JSON.stringify(names)} in its config.json, ` +
        `the task has ${task.labels.join(", ")}; give them the same names in label2id, or ` +
        "LABEL_0, LABEL_1 … in the task's order",
    );
  }
  return order;
}
