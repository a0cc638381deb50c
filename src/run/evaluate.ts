import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { at } from "../at.js";
import { isAdapter } from "../checkpoint/folder.js";
import { openExpert, openMember, type Member } from "../checkpoint/family.js";
import { UserError } from "../errors.js";
import { measureTasks, type PreparedTask, type TaskScore } from "../evaluate/evaluate.js";
import {
  classScores,
  plainAnswer,
  wrongAnswers,
  type ClassScore,
  type PlainAnswer,
} from "../evaluate/shown.js";
import { toRows } from "../evaluate/baselines.js";
import type { Merge } from "../evaluate/merge.js";
import { generations, type GeneratedText } from "../evaluate/generations.js";
import { fileNames, resultsFile, runFile } from "../folder/files.js";
import { headFolder, headPath } from "../folder/places.js";
import { checkFamily, checkHead, checkVocabulary, withoutUnread } from "../inputs/models.js";
import { hasHead } from "../models/layers.js";
import { encoderFor, type EncoderOptions } from "../inputs/encoder.js";
import {
  openHead,
  buildModel,
  disposeHead,
  areEmbedded,
  headForm,
  headKind,
  loadHead,
  prepareTask,
  readFamily,
  type DataOptions,
} from "../inputs/prepare.js";
import { Resources } from "../checkpoint/files.js";
import { makeTable } from "../merge/table.js";
import { loadTaskVectors } from "../merge/vectors.js";
import type { HeadNames, Model, ModelFamily, OutputLayer } from "../models/types.js";
import type { Placement } from "../plan/memory.js";
import type { ResultRow } from "../report/rows.js";
import type { Encoder } from "../tasks/encoders.js";
import { tasksOf } from "../inputs/data.js";
import { isEmbedded } from "../tasks/head-rows.js";
import { loadTasks, type Task } from "../tasks/registry.js";
import type { SplitName } from "../tasks/split.js";

export interface EvaluateOptions {
  readonly folder: string;
  /** The model that an adapter belongs to; of any other model, whose tokenizer it has. */
  readonly base?: string | undefined;
  /** Where the weights live meanwhile, and whether the model runs by blocks (default: all on the device). */
  readonly placement?: Placement | undefined;
  readonly prompts?: string | undefined;
  /** `--chat-template` (default: the folder's own). */
  readonly chatTemplate?: string | undefined;
  readonly score?: "sum" | "mean" | undefined;
  readonly microBatch?: number | undefined;
  /** Of how many test examples a task what the model says is returned: those that it answers wrongly. */
  readonly show?: number | undefined;
  readonly tasks?: readonly string[] | undefined;
  readonly data?: string | undefined;
  /** These default to what the run that wrote the folder used: a task with one file only is cut by them. */
  readonly seed?: number | undefined;
  readonly maxLength?: number | undefined;
  readonly valPerTask?: number | undefined;
  readonly split?: SplitName | undefined;
  readonly testPerTask?: number | undefined;
  readonly columns?: Readonly<Record<string, string>> | undefined;
}

export interface Evaluation {
  readonly rows: ResultRow[];
  readonly scores: Record<string, TaskScore>;
  readonly synthetic: boolean;
  /** What a language model says to some examples; of other models, some that they answer wrongly. */
  readonly said: GeneratedText[];
  /** Of every task whose answers are classes, each class's numbers. */
  readonly classes: Readonly<Record<string, readonly ClassScore[]>>;
  /** What is said to every test example of every task, in the order of its files. */
  readonly answers: Readonly<Record<string, readonly PlainAnswer[]>>;
}

/** The folder with the model's config and tokenizer: an adapter's is its base, that of its run unless one is named. */
export async function homeOf({
  folder,
  base: given,
}: Pick<EvaluateOptions, "folder" | "base">): Promise<string> {
  if (!isAdapter(folder)) return folder;
  const base = given ?? (await runFile.read(folder))?.places?.base;
  if (base === undefined || (given === undefined && !existsSync(base)))
    throw new UserError(`${folder}: it is an adapter: name the model that it belongs to with --base`);
  return base;
}

/** Data and templates: as the options say, else those of the run that wrote the folder. */
async function recordedData({
  folder,
  ...given
}: EvaluateOptions): Promise<{ data: string; prompts?: string | undefined }> {
  const run = await runFile.read(folder);
  const data = given.data ?? run?.data;
  if (data === undefined)
    throw new UserError(`${folder}: it does not say what data it was made with: name the folder with --data`);
  if (given.data === undefined && !existsSync(data))
    throw new UserError(`${folder}: its data are not there any more (${data}): name the folder with --data`);
  return { data, prompts: given.prompts ?? run?.prompts };
}

/** How the test examples are drawn: as the options say, else as in the run that wrote the folder. */
async function drawOptions(
  options: EvaluateOptions,
): Promise<DataOptions & EncoderOptions & Pick<EvaluateOptions, "columns">> {
  const { settings: saved = {} } = (await resultsFile.read(options.folder)) ?? {};
  return {
    ...(await recordedData(options)),
    seed: options.seed ?? saved.seed ?? 0,
    maxLength: options.maxLength ?? saved.maxLength ?? 128,
    valPerTask: options.valPerTask ?? saved.valPerTask ?? 32,
    split: options.split ?? saved.split ?? "files",
    testPerTask: options.testPerTask ?? saved.testPerTask,
    score: options.score ?? saved.score ?? "sum",
    columns: options.columns ?? saved.columns,
  };
}

/** Opens a written merge; of an adapter, on its base. */
async function openMerged(
  folder: string,
  home: string,
  family: ModelFamily,
  resources: Resources,
): Promise<Member> {
  const base = await openMember("merged", home, family.canonical);
  resources.add(() => base.checkpoint.close());
  if (home === folder) return base;
  const merged = await openExpert({ label: "merged", folder }, base, family.canonical);
  resources.add(() => merged.checkpoint.close());
  return merged;
}

/** Whether a folder keeps a head for each task, as a merge does; any other model has its own, if any. */
const keepsHeads = (folder: string): boolean => existsSync(join(folder, fileNames.heads));

/** What a folder's row is called. */
const whatIs = (folder: string): string => (keepsHeads(folder) ? "merged" : "model");

/** The tasks that are asked for, or every one that the folder has a head for. */
async function tasksIn({ folder, tasks, columns }: EvaluateOptions, data: string): Promise<Task[]> {
  const isMerge = keepsHeads(folder);
  const heads = join(folder, fileNames.heads);
  const kept = [heads].filter(existsSync).map((path) => readdir(path));
  const ids = tasks ?? (await Promise.all(kept)).flat().sort();
  const known = await loadTasks(data);
  // Vectors need no head: any model that makes them answers every such task.
  const needHeads = ids.map((id) => known.get(id)).some((task) => !task || !isEmbedded(task));
  if (!isMerge && ids.length !== 1 && (ids.length === 0 || needHeads))
    throw new UserError(
      `${folder}: there is no heads/ in it, as in a merge; of another model name the one task that it answers: ` +
        "--tasks NAME",
    );
  return tasksOf(data, ids, {
    expertOf: (id) => [headFolder(folder, id)].find(existsSync) ?? folder,
    note() {},
    columns,
  });
}

/** A language model that scores the answers where no task has a head of its own. */
function outputLayerFor(
  { actual, checkpoint: { folder } }: Member,
  { outputLayers, head }: ModelFamily,
  tasks: readonly Task[],
): OutputLayer {
  const isOwn = head !== undefined && !keepsHeads(folder) && hasHead(head, (name) => actual.has(name));
  const hasHeads = isOwn || tasks.every(({ id }) => existsSync(headPath(folder, id)));
  return !hasHeads && outputLayers.includes("score") ? "score" : "pool";
}

interface TaskContext {
  readonly merged: Member;
  readonly canonical: (name: string) => string;
  readonly head: HeadNames | undefined;
  readonly model: Model;
  readonly encoder: Encoder;
  readonly options: DataOptions;
}

/** A task's examples, and its head on the device where the model needs one. */
async function prepareWrittenTask(
  task: Task,
  { merged, canonical, head, model, encoder, options }: TaskContext,
  resources: Resources,
): Promise<PreparedTask> {
  if (!head) return prepareTask(task, { config: {} }, encoder, options);
  const { folder } = merged.checkpoint;
  let holder = merged;
  if (keepsHeads(folder)) {
    holder = await openHead(folder, task.id, canonical);
    resources.add(() => holder.checkpoint.close());
  }
  checkHead(holder, head, model, task);
  const loaded = await loadHead(holder, head, headKind(task));
  resources.add(() => disposeHead(loaded));
  return prepareTask(task, { head: loaded, config: holder.checkpoint.config }, encoder, options);
}

/**
 * Measures a merged model from its written files alone: its folder, its heads, the data. Or any other model, on the one
 * task that it answers.
 */
export async function evaluateFolder(
  options: EvaluateOptions,
  method = whatIs(options.folder),
): Promise<Evaluation> {
  const { folder, placement, show = 0 } = options;
  const draw = await drawOptions(options);
  const home = await homeOf(options);
  const family = await readFamily(home);
  const resources = new Resources();
  try {
    const merged = await openMerged(folder, home, family, resources);
    const tasks = await tasksIn({ ...options, columns: draw.columns }, draw.data);
    const embedded = areEmbedded(tasks, family.outputLayers);
    const outputLayer = embedded ? "pool" : outputLayerFor(merged, family, tasks);
    const sources = [
      { label: "merged", folder, tasks: tasks.map(({ id }) => id), merged: keepsHeads(folder) },
    ];
    const form = await headForm(family, { base: merged, experts: [] }, { sources, tasks });
    const head = outputLayer === "pool" && !embedded ? form : undefined;
    const model = buildModel(merged, outputLayer, embedded || head?.dense !== undefined);
    checkFamily({ base: merged, experts: [], close: merged.checkpoint.close }, model);
    await withoutUnread(family, model, [merged]);
    // An expert may be saved without its tokenizer, which is its base's.
    let words = home;
    if (!keepsHeads(folder)) words = options.base ?? home;
    const encoder = await encoderFor(words, model, { ...draw, chatTemplate: options.chatTemplate }, [folder]);
    checkVocabulary(words, encoder, model);
    const context = { merged, canonical: family.canonical, head, model, encoder, options: draw };
    const prepared: PreparedTask[] = [];
    for (const task of tasks) prepared.push(await prepareWrittenTask(task, context, resources));
    const vectors = await loadTaskVectors({ base: merged, columns: [] }, [...model.parameters.keys()], {
      residency: placement?.residency,
      tables: model.tables,
    });
    resources.add(() => vectors.dispose());
    const merge: Merge = {
      model,
      vectors,
      table: makeTable(0, 0, () => 0),
      blockwise: placement?.blockwise,
      microBatch: options.microBatch,
    };
    const measured = await measureTasks(merge, prepared, "test");
    const scores = measured.map(({ score }) => score);
    const named = prepared.map((task, i) => ({ ...task, answered: at(measured, i).answered }));
    const wrong = named.flatMap((task) => wrongAnswers(task, show, encoder.text));
    return {
      said: encoder.speaks ? await generations(merge, prepared, show) : wrong,
      rows: toRows(method, prepared, scores, draw.seed),
      scores: Object.fromEntries(scores.map((score, i) => [at(prepared, i).id, score])),
      classes: Object.fromEntries(named.map((task) => [task.id, classScores(task)])),
      answers: Object.fromEntries(
        named.map((task) => [task.id, task.answered.map((one) => plainAnswer(one, task))]),
      ),
      synthetic: prepared.some(({ synthetic }) => synthetic),
    };
  } finally {
    await resources.close();
  }
}
