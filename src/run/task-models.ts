/**
 * Whole models of single tasks, as transformers (or PEFT) opens them: beside a merge, with its weights linked, and as
 * folders of their own.
 */
import { existsSync } from "node:fs";
import { copyFile, link, mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { adapterWeightsName } from "../checkpoint/adapter.js";
import { copyCompanions } from "../checkpoint/companions.js";
import { openMember, type Member } from "../checkpoint/family.js";
import { readJsonObject, writeText } from "../checkpoint/files.js";
import { adapterConfigName, entryOf, isAdapter, openCheckpoint } from "../checkpoint/folder.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { writeSafetensors, writeWeights, type TensorSource } from "../checkpoint/write.js";
import { UserError, errorCode } from "../errors.js";
import { fileNames, resultsFile } from "../folder/files.js";
import { headFolder, headPath, taskFolder } from "../folder/places.js";
import { classWithHead } from "../inputs/data.js";
import { openHead, readFamily } from "../inputs/prepare.js";
import {
  bodyName,
  classPrefix,
  hasPooler,
  headName,
  isPoolerOf,
  savedModules,
} from "../models/class-names.js";
import type { ModelFamily } from "../models/types.js";
import { homeOf } from "./evaluate.js";

/** A task's head in a merge's folder, and the class of transformers that opens it with the merge. */
interface TaskModel {
  readonly task: string;
  readonly head: Member;
  readonly architecture: string;
  /** What that class puts before the backbone's names, with its dot. */
  readonly prefix: string;
}

/** The tasks of a merge that have a head which transformers has a class for. */
async function taskModels(out: string, family: ModelFamily): Promise<TaskModel[]> {
  const heads = join(out, fileNames.heads);
  if (!existsSync(heads) || family.backbone === undefined) return [];
  const found: TaskModel[] = [];
  for (const task of (await readdir(heads)).sort()) {
    if (!existsSync(headPath(out, task))) continue;
    const head = await openHead(out, task, family.canonical);
    const architecture = classWithHead(head.checkpoint.config);
    if (architecture !== undefined)
      found.push({ task, head, architecture, prefix: classPrefix(family, architecture) });
    else await head.checkpoint.close();
  }
  return found;
}

/** The head's tensors under the names that the class has for them, where it has them. */
function headTensorsOf(
  { head, architecture }: TaskModel,
  family: ModelFamily,
  prefix: string,
): TensorSource[] {
  const { checkpoint, actual } = head;
  return [...actual].flatMap(([canonical, stored]): TensorSource[] => {
    const isPooler = isPoolerOf(family, canonical);
    if (isPooler && !hasPooler(architecture)) return [];
    const { dtype, shape } = entryOf(checkpoint, stored);
    const name = headName(isPooler ? canonical : stored, family, { architecture, prefix });
    return [{ name, dtype, shape, bytes: async () => (await checkpoint.read(stored)).bytes }];
  });
}

/** The config of a task's model. */
async function writeTaskConfig(
  folder: string,
  { head, architecture }: TaskModel,
  out: string,
): Promise<void> {
  const { dtype, torch_dtype: older } = await readJsonObject(join(out, fileNames.config));
  await writeText(join(folder, fileNames.config), {
    ...head.checkpoint.config,
    architectures: [architecture],
    torch_dtype: undefined,
    dtype: dtype ?? older,
  });
}

const partName = (i: number, count: number): string =>
  `model-${String(i).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.safetensors`;

/** Links a file, or copies it where the file system has no links. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  await rm(to, { force: true });
  await link(from, to).catch(async (error: unknown) => {
    if (!["EPERM", "EXDEV", "ENOTSUP", "EMLINK", "ENOSYS"].includes(errorCode(error) ?? "")) throw error;
    await copyFile(from, to);
  });
}

/** A model whose weights are the merge's own files, with a file of the head's beside them. */
async function writeLinked(folder: string, out: string, one: TaskModel, family: ModelFamily): Promise<void> {
  const merged = await openCheckpoint(out);
  try {
    // transformers puts the prefix before all names of a file, or before none.
    const isPrefixed = merged.names.some((name) => name.startsWith(one.prefix));
    const sources = headTensorsOf(one, family, isPrefixed ? one.prefix : "");
    const bodies = [...new Set(merged.names.map((name) => merged.ref(name).path))];
    const count = bodies.length + 1;
    const files = new Map(bodies.map((path, i) => [path, partName(i + 1, count)]));
    for (const [path, file] of files) await linkOrCopy(path, join(folder, file));
    const own = partName(count, count);
    await writeSafetensors(join(folder, own), sources);
    const weight_map = Object.fromEntries([
      ...merged.names.map((name) => [name, files.get(merged.ref(name).path)]),
      ...sources.map(({ name }) => [name, own]),
    ]) as Record<string, string>;
    await writeText(join(folder, "model.safetensors.index.json"), { metadata: {}, weight_map });
  } finally {
    await merged.close();
  }
}

/** A model whose weights are copied, under the names that its class has for them. */
async function writeCopied(folder: string, out: string, one: TaskModel, family: ModelFamily): Promise<void> {
  const merged = await openMember("merged", out, family.canonical);
  try {
    const { checkpoint, actual } = merged;
    // The backbone alone: a base may have an output layer of its own.
    const { parameters } = family.build(checkpoint.config, {
      outputLayer: "pool",
      has: (name) => actual.has(name),
    });
    const body = [...actual].flatMap(([canonical, stored]): TensorSource[] => {
      if (!parameters.has(canonical)) return [];
      const { dtype, shape } = entryOf(checkpoint, stored);
      const name = bodyName(stored, family, one.prefix);
      return [{ name, dtype, shape, bytes: async () => (await checkpoint.read(stored)).bytes }];
    });
    await writeWeights(folder, [...body, ...headTensorsOf(one, family, one.prefix)], 5e9);
  } finally {
    await merged.checkpoint.close();
  }
}

/** PEFT's name for what a class is for. */
const peftTypes: readonly (readonly [end: string, type: string])[] = [
  ["ForTokenClassification", "TOKEN_CLS"],
  ["ForQuestionAnswering", "QUESTION_ANS"],
  ["ForSequenceClassification", "SEQ_CLS"],
];

/** An adapter that PEFT opens on the class with the head: the merged one, with the head among what it saves. */
async function writeAdapter(folder: string, out: string, one: TaskModel, family: ModelFamily): Promise<void> {
  const file = await openSafetensors(join(out, adapterWeightsName));
  try {
    const start = "base_model.model.";
    const adapter = [...file.entries].map(([name, { dtype, shape }]): TensorSource => {
      const module = bodyName(name.replace(start, ""), family, one.prefix);
      return { name: start + module, dtype, shape, bytes: async () => (await file.read(name)).bytes };
    });
    const heads = headTensorsOf(one, family, one.prefix);
    const saved = heads.map((source) => ({ ...source, name: start + source.name }));
    await writeSafetensors(join(folder, adapterWeightsName), [...adapter, ...saved]);
    const modules = savedModules(
      heads.map(({ name }) => name),
      one.prefix,
    );
    await writeText(join(folder, adapterConfigName), {
      ...(await readJsonObject(join(out, adapterConfigName))),
      task_type: peftTypes.find(([end]) => one.architecture.endsWith(end))?.[1] ?? null,
      modules_to_save: modules,
    });
    const { checkpoint } = one.head;
    await writeText(join(folder, fileNames.config), {
      ...checkpoint.config,
      architectures: [one.architecture],
    });
  } finally {
    await file.close();
  }
}

/** Everything beside the weights that a pipeline reads: tokenizer, image processor. */
const besideWeights =
  /^(tokenizer|vocab|merges|special_tokens|added_tokens|spiece|sentencepiece|preprocessor|chat_template)/;

/**
 * Writes tasks/<task> beside a merge: for every task with a head, a model that transformers opens with its labels. Its
 * weights are links to the merge's; what is copied are the heads.
 */
export async function writeTaskModels(out: string, home: string): Promise<void> {
  const family = await readFamily(home);
  for (const one of await taskModels(out, family)) {
    const folder = taskFolder(out, one.task);
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    if (isAdapter(out)) await writeAdapter(folder, out, one, family);
    else {
      await writeTaskConfig(folder, one, out);
      if (one.prefix === `${family.backbone}.`) await writeLinked(folder, out, one, family);
      else await writeCopied(folder, out, one, family);
      for (const file of (await readdir(out)).filter((name) => besideWeights.test(name)))
        await linkOrCopy(join(out, file), join(folder, file));
    }
    await one.head.checkpoint.close();
  }
}

/** Writes the model of one of a merge's tasks into a folder of its own. @throws UserError where there is none */
export async function exportTask(out: string, task: string, to: string): Promise<void> {
  if (!resultsFile.exists(out)) throw new UserError(`${out}: it holds no finished merge`);
  if (existsSync(to) && (await readdir(to)).length > 0)
    throw new UserError(`--to ${to}: the folder is not empty; choose another`);
  const family = await readFamily(await homeOf({ folder: out }));
  const all = await taskModels(out, family);
  try {
    const one = all.find((other) => other.task === task);
    if (!one) {
      const known = all.map((other) => other.task).join(", ");
      throw new UserError(`${headFolder(out, task)}: there is no head of ${task}; it has ${known || "none"}`);
    }
    await mkdir(to, { recursive: true });
    if (isAdapter(out)) {
      await writeAdapter(to, out, one, family);
      return;
    }
    await writeTaskConfig(to, one, out);
    await writeCopied(to, out, one, family);
    await copyCompanions(out, to, (path) => !besideWeights.test(path));
  } finally {
    for (const { head } of all) await head.checkpoint.close();
  }
}
