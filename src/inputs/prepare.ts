import { existsSync } from "node:fs";
import { member, type Member, type Family } from "../checkpoint/family.js";
import { refIn, openSafetensors } from "../checkpoint/safetensors.js";
import { lookUp, at } from "../at.js";
import { UserError } from "../errors.js";
import { headFolder, headPath } from "../folder/places.js";
import { join } from "node:path";
import { dispose, tensor1d, tensor2d } from "@tensorflow/tfjs-core";
import { z } from "zod";
import { startEngine, type EngineName } from "../backend/index.js";
import { readJson } from "../checkpoint/files.js";
import type { AnswerNames } from "../evaluate/answers.js";
import type { PreparedTask } from "../evaluate/evaluate.js";
import { familyOf, languageModels } from "../models/index.js";
import { hasHead, headNamesFor, type Head } from "../models/layers.js";
import type { HeadNames, Model, ModelFamily, OutputLayer } from "../models/types.js";
import { encodeMixed, encodeVariants, type Encoder } from "../tasks/encoders.js";
import { isAsked } from "../tasks/decisions.js";
import { renumbered } from "../tasks/examples.js";
import { isEmbedded } from "../tasks/head-rows.js";
import type { Task } from "../tasks/registry.js";
import { loadTaskData, shotsOf, type DrawOptions, type TaskData } from "../tasks/split.js";
import type { Locations } from "./locate.js";

/** Kinds of task that are put to a language model as prompts. */
const kindsOfPrompts: readonly Task["kind"][] = ["single", "pair", "choice", "generate", "chat"];

/** Checks that a model takes what a task gives, and gives what it asks for. */
export function checkKind(task: Task, encoder: Pick<Encoder, "input" | "speaks">): void {
  const isImage = task.kind === "image";
  if (isImage !== (encoder.input === "image"))
    throw new UserError(
      `${task.id} is a task of ${isImage ? "images, and the model takes texts" : "texts, and the model takes images"}`,
    );
  if (encoder.speaks && !kindsOfPrompts.includes(task.kind))
    throw new UserError(
      `${task.id} is of the kind ${task.kind}, which a model answers by a head, and this language model has none`,
    );
  if ((task.kind === "generate" || task.kind === "chat") && !encoder.speaks)
    throw new UserError(
      `${task.id} asks for a generated text, and the model generates none: use a language model (${languageModels})`,
    );
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

/** Reads a task's head onto the device, as float32; none where the model needs none. */
export async function loadHead(
  member: Member,
  form: HeadNames | undefined,
  kind: Parameters<typeof headNamesFor>[1],
): Promise<Head | undefined> {
  if (!form) return undefined;
  const names = headNamesFor(form, kind, (name) => member.actual.has(name));
  const matrix = async (name: string) => {
    const { values, shape } = await member.weights(name);
    return tensor2d(values, [at(shape, 0), at(shape, 1)]);
  };
  const vector = async (name: string) => tensor1d((await member.weights(name)).values);
  return {
    weight: await matrix(names.weight),
    ...(names.bias !== undefined && { bias: await vector(names.bias) }),
    ...(names.dense !== undefined && {
      dense: {
        weight: await matrix(`${names.dense}.weight`),
        bias: await vector(`${names.dense}.bias`),
        activation: names.activation,
      },
    }),
  };
}

export const disposeHead = (head: Head | undefined): void =>
  dispose([head?.weight, head?.bias, head?.dense?.weight, head?.dense?.bias].filter((t) => t !== undefined));

/** A model folder's config.json. @throws UserError where there is none, or no JSON object */
export async function readModelConfig(folder: string): Promise<Record<string, unknown>> {
  const path = join(folder, "config.json");
  if (!existsSync(path))
    throw new UserError(`${folder}: there is no config.json; is it a Hugging Face model folder?`);
  const config = z.record(z.string(), z.unknown()).safeParse(await readJson(path));
  if (!config.success) throw new UserError(`${path}: not a JSON object`);
  return config.data;
}

/** The family that a folder's config.json asks for. */
export async function readFamily(folder: string): Promise<ModelFamily> {
  return familyOf(await readModelConfig(folder), folder);
}

/** The family and model that a folder's config.json asks for, as the config alone tells it. */
export async function readModel(folder: string): Promise<{ family: ModelFamily; model: Model }> {
  const family = await readFamily(folder);
  return { family, model: family.build(await readModelConfig(folder)) };
}

/** The model that a base is, read out as its experts need it. */
export const buildModel = (
  { checkpoint, actual }: Member,
  outputLayer: OutputLayer,
  withoutPooler = false,
): Model =>
  familyOf(checkpoint.config, checkpoint.folder).build(checkpoint.config, {
    outputLayer,
    withoutPooler,
    has: (name) => actual.has(name),
  });

/** What a task's head is put to. */
export function headKind({ kind }: Task): Parameters<typeof headNamesFor>[1] {
  if (kind === "tokens" || kind === "span") return kind;
  // Vectors are made of every token, and go through no pooler.
  if (isEmbedded({ kind })) return "tokens";
  return "row";
}

/**
 * What the heads of some models are called. Where the base or a model has no pooler, the heads have it: as the dense
 * layer in front of them.
 */
export async function headForm(
  { head, pooler, canonical }: ModelFamily,
  { base, experts }: Pick<Family, "base" | "experts">,
  { sources, tasks }: Pick<Locations, "sources"> & { readonly tasks: readonly Task[] },
): Promise<HeadNames | undefined> {
  if (!head || pooler === undefined) return head;
  const weight = `${pooler}.weight`;
  const own = { ...head, dense: pooler };
  // What is answered token by token goes through none.
  if (tasks.some((task) => headKind(task) !== "row")) return own;
  if (![base, ...experts].every(({ actual }) => actual.has(weight))) return own;
  // An earlier merge may have had models without.
  for (const { folder, tasks, merged } of sources)
    for (const task of merged ? tasks : []) {
      if (!existsSync(headPath(folder, task))) continue;
      const { actual, checkpoint } = await openHead(folder, task, canonical);
      await checkpoint.close();
      if (actual.has(weight)) return own;
    }
  return head;
}

/**
 * Whether tasks are answered by vectors, which need no head.
 * @throws UserError where some are and some are not, or the model gives none
 */
export function areEmbedded(tasks: readonly Task[], outputLayers: readonly OutputLayer[]): boolean {
  const [one] = tasks.filter(isEmbedded);
  const [other] = tasks.filter((task) => !isEmbedded(task));
  if (one && other)
    throw new UserError(
      `${one.id} is answered by vectors, ${other.id} is not: merge embedding models by themselves`,
    );
  if (one && !outputLayers.includes("pool"))
    throw new UserError(`${one.id} is answered by vectors, and a model of this kind gives none here`);
  return one !== undefined;
}

/**
 * Whether a family's experts carry heads, or are language models that score what they are to say.
 * @throws UserError where some do and some do not
 */
export function outputLayerOf(
  outputLayers: readonly OutputLayer[],
  head: HeadNames | undefined,
  { experts }: Family,
  { sources }: Pick<Locations, "sources">,
): OutputLayer {
  if (outputLayers.length === 1 || head === undefined) return at(outputLayers, 0);
  const has = sources.map(
    ({ folder, tasks, merged }, i) =>
      hasHead(head, (name) => at(experts, i).actual.has(name)) ||
      (merged && tasks.every((task) => existsSync(headPath(folder, task)))),
  );
  if (!has.includes(false)) return "pool";
  if (!has.includes(true)) return "score";
  throw new UserError(
    `${at(sources, has.indexOf(true)).folder} carries a head ("${head.weight}"), ` +
      `${at(sources, has.indexOf(false)).folder} none: experts are either all classifiers or all ` +
      "language models",
  );
}

/**
 * Starts the engine for a model. On wasm a narrow one gets a single thread: products that small cost less than waking
 * another thread for them, and far less where the cores are busy.
 */
export function startFor(model: Model, backend: EngineName | "auto"): Promise<EngineName> {
  if (model.width < 256) return startEngine(backend, 1);
  return startEngine(backend);
}

export interface DataOptions extends DrawOptions {
  readonly data: string;
}

/** A task's head on the device, and its expert's config, which orders the labels. */
export interface TaskHead {
  readonly head?: Head | undefined;
  readonly config: Readonly<Record<string, unknown>>;
}

/** What a task's answers are counted by. @param order the model's number of each class */
function answerNames({ metrics, labels }: Task, order: readonly number[] | undefined): AnswerNames {
  if (!labels) return { metrics };
  if (!order) return { metrics, classes: labels };
  const classes = [...labels];
  for (const [label, name] of labels.entries()) classes[at(order, label)] = name;
  return { metrics, classes, positive: order[1] };
}

/** Draws and encodes a task's examples. */
export async function prepareTask(
  task: Task,
  { head, config }: TaskHead,
  encoder: Encoder,
  options: DataOptions,
): Promise<PreparedTask & Pick<TaskData, "sources"> & { readonly unasked: number }> {
  checkKind(task, encoder);
  const { validation, test, sources } = await loadTaskData(options.data, task, options);
  const order = head && labelOrder(config, task);
  const inOrder = (examples: typeof test) =>
    order ? examples.map((example) => renumbered(example, order)) : examples;
  const shots = await shotsOf(options.data, task);
  const tests = encodeVariants(inOrder(test), encoder, task, shots);
  const drawn = [encodeMixed(inOrder(validation), encoder, task, { shots }), at(tests, 0)];
  const [learned = [], asked = []] = drawn.map((examples) => examples.filter(isAsked));
  if (learned.length === 0 || asked.length === 0)
    throw new UserError(
      `${task.id}: nothing is asked in any of its examples: a conversation may be longer than --max-length before ` +
        "anything is said in it",
    );
  return {
    ...encoder.answering(task),
    ...answerNames(task, order),
    id: task.id,
    synthetic: task.synthetic,
    head,
    sources,
    validation: learned,
    test: asked,
    unasked: drawn.flat().length - learned.length - asked.length,
    ...(tests.length > 1 && { tests }),
  };
}

/** A head that `writeHead` wrote, seen as a checkpoint of its own. */
export async function openHead(
  folder: string,
  task: string,
  canonical: (name: string) => string,
): Promise<Member> {
  const path = headPath(folder, task);
  if (!existsSync(path))
    throw new UserError(`${folder}: it has no head for ${task} (heads/${task}/head.safetensors)`);
  const own = headFolder(folder, task);
  const config = await readModelConfig(own);
  const file = await openSafetensors(path);
  return member(
    task,
    {
      folder: own,
      config,
      files: [],
      names: [...file.entries.keys()],
      entry: (name) => file.entries.get(name),
      ref: (name) => refIn(path, lookUp(file.entries, name)),
      read: file.read,
      readRange: file.readRange,
      close: file.close,
    },
    canonical,
  );
}
