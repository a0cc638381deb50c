import seedrandom from "seedrandom";
import { at } from "../at.js";
import { UserError } from "../errors.js";
import type { Example } from "./examples.js";
import { findSplits, readExamples, type DataFiles } from "./files.js";
import { imageSplits, type ReadSplit, type SplitReader } from "./images.js";
import { pythonBelow } from "./mersenne.js";
import type { Task } from "./registry.js";

export const splitNames = ["files", "paper", "tenth"] as const;
export type SplitName = (typeof splitNames)[number];

/** How a task's examples are drawn. */
export interface DrawOptions {
  readonly valPerTask: number;
  readonly seed: number;
  readonly split?: SplitName | undefined;
  /** Test examples that are measured on, drawn by the seed; all without. */
  readonly testPerTask?: number | undefined;
  /** Whether texts to be said may be missing from validation examples: where experts say them. */
  readonly mayLackAnswers?: boolean | undefined;
}

/** Some of a test set, drawn by the seed, fewer being the first of more; undefined: all of it, as it is. */
export const testDraw = <T>(
  test: readonly T[],
  { id }: Pick<Task, "id">,
  { testPerTask: count, seed }: Pick<DrawOptions, "testPerTask" | "seed">,
): readonly T[] => {
  if (count === undefined) return test;
  return shuffled(test, `${seed}/test/${id}`).slice(0, count);
};

export interface TaskData {
  /** The examples that coefficients are trained and hyper-parameters searched on. */
  readonly validation: readonly Example[];
  /** Only ever evaluated on. */
  readonly test: readonly Example[];
  /** The files each came from. */
  readonly sources: { readonly validation: DataFiles; readonly test: DataFiles };
}

/** Items in another order (Fisher–Yates, from the end). @param below draws a whole number below `count` */
export function fisherYates<T>(items: readonly T[], below: (count: number) => number): T[] {
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = below(i + 1);
    const held = at(out, i);
    out[i] = at(out, j);
    out[j] = held;
  }
  return out;
}

/** A Fisher–Yates shuffle driven by a seed string: the same order on every machine. */
export function shuffled<T>(items: readonly T[], seed: string): T[] {
  const random = seedrandom(seed);
  return fisherYates(items, (count) => Math.floor(random() * count));
}

/**
 * Reads a task's splits when they are asked for: images or texts. A split whose labels are hidden is none.
 * @param mayLack of texts to be said: it is one without answers
 */
async function splitReader(dataFolder: string, task: Task, mayLack = false): Promise<SplitReader> {
  if (task.kind === "image") return imageSplits(dataFolder, task);
  const files = await findSplits(dataFolder, task);
  return async (split) => {
    const source = files[split];
    if (source === undefined) return undefined;
    const examples: Example[] = [];
    for (const path of source.files) examples.push(...(await readExamples(path, task, mayLack)));
    if (examples.length === 0) return undefined;
    return { source, examples };
  };
}

/** A training set without a tenth of it, and that tenth: the same for whoever fine-tunes and whoever merges. */
function withoutTenth(train: readonly Example[], order: string): { rest: Example[]; tenth: Example[] } {
  const drawn = shuffled(train, order);
  const count = Math.max(1, Math.floor(drawn.length / 10));
  return { rest: drawn.slice(count), tenth: drawn.slice(0, count) };
}

/** A tenth that no seed draws: experts of any seed are kept from it. */
const tenthOf = ({ id }: Pick<Task, "id">): string => `tenth/${id}`;

/**
 * What a task is fine-tuned on, and what the epoch is chosen by. Nothing that {@link loadTaskData}
 * tests on: where the test file's labels are hidden, merges are tested on the development file, so a
 * tenth of the training examples, drawn by the seed, chooses. With the split `tenth` a tenth chooses that no seed
 * draws, whatever files there are: merges with that split have it for validation.
 * @throws UserError where there is no training file, or nothing beside it
 */
export async function trainingData(
  dataFolder: string,
  task: Task,
  seed: number,
  split: SplitName = "files",
): Promise<{ train: Example[]; judge: Example[]; sources: DataFiles[] }> {
  const read = await splitReader(dataFolder, task);
  const train = await read("train");
  if (!train)
    throw new UserError(
      `${dataFolder}/${task.id}: there is no training file with labels (the data that ship have none): name a data ` +
        "folder with <task>/train.jsonl, .csv, .tsv or .parquet",
    );
  const [tested, judge] = [await read("test"), await read("validation")];
  if (!tested && !judge)
    throw new UserError(
      `${dataFolder}/${task.id}: there is a training file alone, which merges are tested on a ` +
        "part of; put a test or validation file beside it",
    );
  if (tested && judge && split !== "tenth")
    return { train: train.examples, judge: judge.examples, sources: [train.source, judge.source] };
  const order = split === "tenth" ? tenthOf(task) : `${seed}/judge/${task.id}`;
  const { rest, tenth } = withoutTenth(train.examples, order);
  return { train: rest, judge: tenth, sources: [train.source] };
}

/** The first examples of a task's training file, which stand solved before what is asked. @throws UserError */
export async function shotsOf(dataFolder: string, task: Task): Promise<readonly Example[]> {
  const { shots: count = 0 } = task;
  if (count === 0) return [];
  const train = await (await splitReader(dataFolder, task))("train");
  if (train && train.examples.length >= count) return train.examples.slice(0, count);
  throw new UserError(
    `${dataFolder}/${task.id}: the task asks with ${count} solved examples before it, and its training file has ` +
      `${train?.examples.length ?? 0}`,
  );
}

/** One set, cut in two. @throws UserError where nothing is left to test on */
function cutInTwo({ source, examples }: ReadSplit, order: readonly Example[], count: number): TaskData {
  if (examples.length <= count)
    throw new UserError(
      `${source.name}: its ${examples.length} examples leave nothing to test on after ` +
        `--val-per-task ${count}`,
    );
  return {
    validation: order.slice(0, count),
    test: order.slice(count),
    sources: { validation: source, test: source },
  };
}

/**
 * As SuperMerge and TIES draw: from the published validation set, in the order of Python's shuffle with seed 42. Where
 * the published test set has labels it is the test, whole; where it hides them, the rest of the validation set is.
 */
async function paperData(read: SplitReader, count: number, where: string): Promise<TaskData> {
  const test = await read("test");
  const validation = await read("validation");
  // Where a published validation set lies alone it may be called a test set.
  const published = validation ?? test;
  if (!published)
    throw new UserError(
      `${where}: --split paper draws from the published validation set, and there is none with labels`,
    );
  const order = fisherYates(published.examples, pythonBelow(42));
  if (!validation || !test) return cutInTwo(published, order, count);
  return {
    validation: order.slice(0, count),
    test: test.examples,
    sources: { validation: validation.source, test: test.source },
  };
}

/** The tenth of the training examples that fine-tuning is kept from, and the published test (or development) set. */
async function tenthData(
  read: SplitReader,
  task: Task,
  { valPerTask: count, seed }: DrawOptions,
  where: string,
): Promise<TaskData> {
  const train = await read("train");
  const test = (await read("test")) ?? (await read("validation"));
  if (!train || !test)
    throw new UserError(
      `${where}: --split tenth takes a tenth of the training examples, and tests on others; there is no ` +
        `${train ? "test or validation" : "training"} file with labels`,
    );
  const { tenth } = withoutTenth(train.examples, tenthOf(task));
  return {
    validation: shuffled(tenth, `${seed}/draw/${task.id}`).slice(0, count),
    test: test.examples,
    sources: { validation: train.source, test: test.source },
  };
}

/**
 * Draws a task's validation examples and its test set.
 * With a labelled test file: test is that file, validation is drawn from the validation file, else from train.
 * Without (published test sets hide their labels): test is the published development file and validation is
 * drawn from train; with a development file alone, it is shuffled and cut.
 * @param split `paper` draws as SuperMerge and TIES do; `tenth` from a tenth of the training examples, which
 *   {@link trainingData} with that split keeps fine-tuning from
 */
export async function loadTaskData(dataFolder: string, task: Task, options: DrawOptions): Promise<TaskData> {
  const drawn = await drawnData(dataFolder, task, options);
  return { ...drawn, test: testDraw(drawn.test, task, options) };
}

/** Prompts that nobody has answered. */
async function unanswered(dataFolder: string, task: Task): Promise<ReadSplit | undefined> {
  const read = await splitReader(dataFolder, task, true);
  return (await read("validation")) ?? (await read("train"));
}

async function drawnData(dataFolder: string, task: Task, options: DrawOptions): Promise<TaskData> {
  const { valPerTask: count, seed, split = "files", mayLackAnswers } = options;
  const read = await splitReader(dataFolder, task);
  const where = `${dataFolder}/${task.id}`;
  if (split === "paper") return paperData(read, count, where);
  if (split === "tenth") return tenthData(read, task, options, where);
  const draw = (examples: readonly Example[]) => shuffled(examples, `${seed}/draw/${task.id}`);
  const labelledTest = await read("test");
  const development = await read("validation");
  const pool =
    (labelledTest ? development : undefined) ??
    (await read("train")) ??
    (labelledTest && mayLackAnswers ? await unanswered(dataFolder, task) : undefined);
  const held = labelledTest ?? development;
  if (held && pool)
    return {
      validation: draw(pool.examples).slice(0, count),
      test: held.examples,
      sources: { validation: pool.source, test: held.source },
    };
  const only = held ?? pool;
  if (!only) throw new UserError(`${where}: no file of it carries labels`);
  return cutInTwo(only, draw(only.examples), count);
}
