/** The examples that a run trains and tests on, and the hashes of everything that its numbers depend on. */
import { existsSync } from "node:fs";
import { createHash } from "node:crypto";
import { basename, dirname, join, relative } from "node:path";
import type { Family, Member } from "../checkpoint/family.js";
import { readJsonObject, sha256 } from "../checkpoint/files.js";
import { adapterConfigName, isAdapter } from "../checkpoint/folder.js";
import { fileNames } from "../folder/files.js";
import { headFolder, headPath } from "../folder/places.js";
import type { InputHash } from "../report/card.js";
import { requestFor } from "../plan/memory.js";
import type { DataFiles } from "../tasks/files.js";
import type { TaskData } from "../tasks/split.js";
import type { Source } from "./locate.js";
import type { MergeOptions } from "../config/options.js";
import type { MemoryPlan } from "./placement.js";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import type { PreparedTask } from "../evaluate/evaluate.js";
import { checkpointTypeOf } from "../models/index.js";
import { isNumber, isUnanswered } from "../tasks/decisions.js";
import type { Encoder } from "../tasks/encoders.js";
import { inferTask } from "../tasks/infer.js";
import { columnRoles, hasData, loadTasks, pickTasks, partialEntryOf, type Task } from "../tasks/registry.js";
import type { OpenedModels } from "./models.js";
import type { RunOpening } from "./opening.js";
import { disposeHead, headKind, loadHead, prepareTask } from "./prepare.js";

/** What is known of the models that a run's tasks belong to. */
export interface TaskKnowledge {
  /** Where a task's expert lies, with its config; undefined where there is none. */
  expertOf(id: string): string | undefined;
  readonly note: (message: string) => void;
  /** Columns by what they are ("text"), or by a task and that ("mood.text"). */
  readonly columns?: Readonly<Record<string, string>> | undefined;
}

const isRole = (name: string): name is (typeof columnRoles)[number] =>
  columnRoles.some((role) => role === name);

/** A task's own part of a mapping of columns; undefined where there is none. @throws UserError for an unknown role */
function columnsFor(id: string, columns: TaskKnowledge["columns"] = {}): Task["columns"] {
  const found: Partial<Record<(typeof columnRoles)[number], string>> = {};
  for (const [key, column] of Object.entries(columns)) {
    const parts = key.split(".");
    const role = at(parts, -1);
    if (!isRole(role))
      throw new UserError(`--columns ${key}=${column}: a column is one of ${columnRoles.join(", ")}`);
    if (parts.length === 1 || parts.slice(0, -1).join(".") === id) found[role] = column;
  }
  return Object.keys(found).length > 0 ? found : undefined;
}

/** Ends of classes by what PEFT calls them. */
const adapterClasses: Readonly<Record<string, string>> = {
  TOKEN_CLS: "ForTokenClassification",
  QUESTION_ANS: "ForQuestionAnswering",
  SEQ_CLS: "ForSequenceClassification",
  CAUSAL_LM: "ForCausalLM",
  SEQ_2_SEQ_LM: "ForConditionalGeneration",
};

/** An expert's config; of an adapter that has none, what it says that it is for. */
async function configOfExpert(folder: string): Promise<Record<string, unknown>> {
  const path = join(folder, fileNames.config);
  // sentence-transformers: it makes vectors. What a merge keeps of an expert without a head is told by the merge.
  const isKept = basename(dirname(folder)) === fileNames.heads && !existsSync(join(folder, fileNames.head));
  const modules = existsSync(join(isKept ? dirname(dirname(folder)) : folder, "modules.json"));
  if (existsSync(path)) return { ...(await readJsonObject(path)), ...(modules && { modules }) };
  if (!isAdapter(folder)) return {};
  const { task_type: type } = await readJsonObject(join(folder, adapterConfigName));
  const found = typeof type === "string" ? adapterClasses[type] : undefined;
  return found === undefined ? {} : { architectures: [found] };
}

/**
 * The tasks of a run. What no registry names is found out about, where the data folder has it.
 * @throws UserError naming the nearest known task, or what cannot be told
 */
export async function tasksOf(
  data: string,
  ids: readonly string[],
  { expertOf, note, columns }: TaskKnowledge,
): Promise<Task[]> {
  const registry = await loadTasks(data);
  for (const id of ids) {
    if (registry.has(id) || !hasData(data, id)) continue;
    const expert = expertOf(id);
    const config = expert === undefined ? undefined : await configOfExpert(expert);
    const said = await partialEntryOf(data, id);
    const { task, told } = await inferTask({ id, data, config, said, columns: columnsFor(id, columns) });
    note(told);
    registry.set(id, task);
  }
  return pickTasks(registry, ids).map((task) => {
    const own = columnsFor(task.id, columns);
    return own ? { ...task, columns: { ...task.columns, ...own } } : task;
  });
}

/** Where a run's experts lie: of an earlier merge, what it kept of each task's expert. */
export const expertsIn =
  (sources: readonly Source[]) =>
  (id: string): string | undefined => {
    const source = sources.find(({ tasks }) => tasks.includes(id));
    if (!source?.merged) return source?.folder;
    return headFolder(source.folder, id);
  };

/** A task's examples, encoded, its head on the device, and the files that they came from. */
export type TaskExamples = PreparedTask & Pick<TaskData, "sources">;

/** What examples are made of. */
export interface TaskSources {
  readonly tasks: readonly Task[];
  /** Each task's head, as a checkpoint that holds one. */
  readonly heads: readonly Member[];
  readonly encoder: Encoder;
}

/** Draws and encodes every task's examples, and loads its head. The engine must run. */
export async function prepareTasks(
  { options, data, hooks, resources }: RunOpening,
  { head }: OpenedModels,
  { tasks, heads, encoder }: TaskSources,
): Promise<TaskExamples[]> {
  const { valPerTask, testPerTask, seed, split, loss, distilOn } = options;
  const mayLackAnswers = loss === "distillation" && distilOn === "own";
  const draw = { data, valPerTask, testPerTask, seed, split, mayLackAnswers };
  const prepared: TaskExamples[] = [];
  for (const [i, task] of tasks.entries()) {
    const member = at(heads, i);
    const loaded = await loadHead(member, head, headKind(task));
    resources.add(() => disposeHead(loaded));
    const ready = await prepareTask(task, { head: loaded, config: member.checkpoint.config }, encoder, draw);
    hooks.note(examplesText(ready, valPerTask, ready.unasked));
    prepared.push(ready);
  }
  const number = prepared.find(({ kind }) => isNumber(kind) || kind === "match");
  if (number && loss.startsWith("entropy")) {
    const [asked, means] =
      number.kind === "match" ? ["vectors", "their contrast"] : ["a number", "the squared error"];
    throw new UserError(
      `${number.id}: --loss ${loss} needs classes, and the task asks for ${asked}; use --loss cross-entropy ` +
        `(${means}) or distillation`,
    );
  }
  const free = prepared.find(({ kind }) => kind === "generate");
  if (free && loss.startsWith("entropy"))
    throw new UserError(
      `${free.id}: --loss ${loss} needs classes or answers to choose from, and the task asks for a ` +
        "generated text; use --loss cross-entropy, or distillation",
    );
  return prepared;
}

function examplesText(
  { id, kind, validation, test, sources }: TaskExamples,
  asked: number,
  unasked: number,
): string {
  const fewer = validation.length < asked ? `, fewer than --val-per-task ${asked}` : "";
  return (
    `${id}: ${validation.length} validation examples from ${sources.validation.name}${fewer}; ` +
    `${test.length} test examples from ${sources.test.name}` +
    (validation.some(isUnanswered) ? "; without answers" : "") +
    (unasked > 0 && kind === "generate" ? `; ${unasked} are cut before anything is said, and left out` : "")
  );
}

/** A file's hash; of several, that of their names and hashes. */
export async function dataHash({ name, files }: DataFiles): Promise<string> {
  const [first, ...more] = files;
  if (first !== undefined && more.length === 0) return sha256(first);
  const each: string[] = [];
  for (const path of files) each.push(`${await sha256(path)}  ${relative(name, path)}`);
  return createHash("sha256").update(each.join("\n")).digest("hex");
}

/** Everything that the numbers depend on, in files. */
export interface HashedInputs {
  readonly family: Family;
  readonly sources: readonly Source[];
  /** The data folder. */
  readonly data: string;
  readonly tasks: readonly { readonly id: string; readonly sources: TaskData["sources"] }[];
  /** Template files. */
  readonly prompts?: readonly string[] | undefined;
}

/** Files by what they are to the run: weights and configs, heads of earlier merges, tokenizer, the tasks' list. */
function hashedFiles({
  family: { base, experts },
  sources,
  data,
}: HashedInputs): { role: string; path: string }[] {
  const files = [base, ...experts].flatMap(({ label, checkpoint }) =>
    checkpoint.files.map((file) => ({ role: label, path: join(checkpoint.folder, file) })),
  );
  for (const { label, folder, tasks } of sources.filter(({ merged }) => merged))
    for (const task of tasks) {
      const role = `${label}, head of ${task}`;
      const config = join(headFolder(folder, task), fileNames.config);
      files.push({ role, path: headPath(folder, task) }, { role, path: config });
    }
  for (const file of [
    "tokenizer.json",
    "spiece.model",
    "tokenizer_config.json",
    "preprocessor_config.json",
  ]) {
    const path = join(base.checkpoint.folder, file);
    if (existsSync(path)) files.push({ role: base.label, path });
  }
  const tasksFile = join(data, "tasks.json");
  if (existsSync(tasksFile)) files.push({ role: "data", path: tasksFile });
  return files;
}

/** Hashes of everything the numbers depend on: models, tokenizer, data, prompts. */
export async function hashInputs(inputs: HashedInputs): Promise<InputHash[]> {
  const prompts = (inputs.prompts ?? []).map((path) => ({ role: "prompts", path }));
  const hashes: InputHash[] = [];
  for (const { role, path } of [...hashedFiles(inputs), ...prompts])
    hashes.push({ role, file: basename(path), sha256: await sha256(path) });
  for (const { id, sources } of inputs.tasks)
    for (const source of new Set([sources.validation, sources.test]))
      hashes.push({ role: `${id}, data`, file: basename(source.name), sha256: await dataHash(source) });
  return hashes;
}
/** The transformers class that a config names; undefined where it names none. */
export function classNamed(config: Readonly<Record<string, unknown>>): string | undefined {
  const [name]: unknown[] = [config["architectures"]].flat();
  return typeof name === "string" && /^\w+$/.test(name) ? name : undefined;
}

/** A class with a head on the backbone, by a config; undefined where transformers has none for it. */
export function classWithHead(config: Readonly<Record<string, unknown>>): string | undefined {
  const named = classNamed(config);
  // An adapter's config is often its base's, whose class has no head, or another.
  if (named !== undefined && /For(?!MaskedLM$|CausalLM$|PreTraining$)\w+$/.test(named)) return named;
  const stem = checkpointTypeOf(config["model_type"])?.className;
  return stem && `${stem}For${"image_size" in config ? "Image" : "Sequence"}Classification`;
}

/** Settings that change the numbers, as the card and the state record them: without places on this machine. */
export function recorded(options: MergeOptions, { engine, chosen }: MemoryPlan): Record<string, unknown> {
  const {
    base: _b,
    experts: _e,
    data: _d,
    datasets: _ds,
    out: _o,
    resume: _r,
    family: _f,
    prompts: _p,
    chatTemplate: _ct,
    memoryBudget: _m,
    baselines: _l,
    tensorboard: _n,
    // What they let through stands in the card.
    allowPartial: _ap,
    allowMismatch: _am,
    strict: _s,
    overwrite: _ow,
    // What it was fitted to stands in the settings that it decided.
    minutes: _mi,
    dequantise: _dq,
    ...rest
  } = options;
  return { ...rest, backend: engine, ...requestFor(chosen) };
}

/** Hashes of models, tokenizer, prompts and data. */
export async function hashesOf(
  { recipe, data }: RunOpening,
  { family }: OpenedModels,
  { tasks, encoder }: TaskSources,
  prepared: readonly TaskExamples[],
): Promise<InputHash[]> {
  const { sources } = recipe.locations;
  const prompts = encoder.prompts?.(tasks);
  const hashes = await hashInputs({ family, sources, data, tasks: prepared, prompts });
  const { chatTemplate } = encoder;
  if (chatTemplate === undefined || !tasks.some(({ kind }) => kind === "chat")) return hashes;
  const hash = createHash("sha256").update(chatTemplate).digest("hex");
  return [...hashes, { role: "conversations", file: "chat_template.jinja", sha256: hash }];
}
