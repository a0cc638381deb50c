import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import { at } from "../at.js";
import type { EngineName } from "../backend/index.js";
import { readJson, writeText, digest } from "../checkpoint/files.js";
import { openMember } from "../checkpoint/family.js";
import { Stopped, UserError } from "../errors.js";
import type { ModelFamily } from "../models/types.js";
import { version } from "../package.js";
import { resultRow, type ResultRow } from "../report/rows.js";
import type { InputHash } from "../report/card.js";
import type { Candidate } from "../compare/candidates.js";
import { evaluateFolder } from "../run/evaluate.js";
import { finetune } from "../finetune/finetune.js";
import { locateBase } from "../inputs/locate.js";
import { mergeFolders } from "../mergers/models.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { writeHead } from "../folder/output.js";
import { encoderFor } from "../inputs/encoder.js";
import { buildModel, readFamily, startFor } from "../inputs/prepare.js";
import { hashInputs, dataHash } from "../inputs/data.js";
import { loadTasks, pickTasks, type Task } from "../tasks/registry.js";
import { loadTaskData, trainingData } from "../tasks/split.js";
import type { FinetuneSettings } from "./types.js";

export interface Orders {
  readonly options: MergeOptions & { readonly data: string };
  readonly finetuning: FinetuneSettings;
  readonly task: string;
  readonly seed: number;
  readonly merges: readonly Candidate[];
  readonly out: string;
}

const testedFile = z.object({ identity: z.string(), rows: z.array(resultRow), seconds: z.number() });

/** What all models of a task are made and tested with. */
interface OrdersContext extends Orders {
  readonly base: string;
  readonly family: ModelFamily;
  /** What all their numbers depend on. */
  readonly common: Readonly<Record<string, unknown>>;
  readonly hooks: MergeHooks;
  /** Filled as models are made. */
  readonly made: { readonly rows: ResultRow[]; seconds: number };
}

const stopped = (): Stopped => new Stopped("stopped; run the same command to continue");

/** The engine that a base runs on, and the hashes of the files that it and its prompts are. */
async function engineAndFiles(
  { options }: Orders,
  base: string,
  task: Task,
  { canonical, outputLayers }: ModelFamily,
): Promise<{ engine: EngineName; hashes: InputHash[] }> {
  const origin = await openMember("base", base, canonical);
  try {
    const model = buildModel(origin, at(outputLayers, 0));
    const engine = await startFor(model, options.backend);
    const encoder = await encoderFor(base, model, options);
    const family = { base: origin, experts: [], close: origin.checkpoint.close };
    const prompts = encoder.prompts?.([task]);
    return {
      engine,
      hashes: await hashInputs({ family, sources: [], data: options.data, tasks: [], prompts }),
    };
  } finally {
    await origin.checkpoint.close();
  }
}

/** Hashes of a task's data: what models are fine-tuned on, and tested on. */
async function dataHashes({ options, seed }: Orders, task: Task): Promise<InputHash[]> {
  const { sources } = await trainingData(options.data, task, seed);
  const { sources: tested } = await loadTaskData(options.data, task, { ...options, seed });
  const hashes: InputHash[] = [];
  for (const source of [...sources, tested.test])
    hashes.push({ role: `${task.id}, data`, file: basename(source.name), sha256: await dataHash(source) });
  return hashes;
}

/** Makes a model in a folder, unless it stands there, and tests it. @param of what makes it other than the others */
async function testOnce(
  context: OrdersContext,
  name: string,
  of: unknown,
  make: (folder: string) => Promise<void>,
): Promise<string> {
  const { common, task, hooks, made } = context;
  if (hooks.stopping()) throw stopped();
  const folder = join(context.out, name.replaceAll(/[ ,]+/g, "-"));
  const identity = digest({ ...common, of });
  const path = join(folder, "tested.json");
  const before = existsSync(path) ? testedFile.safeParse(await readJson(path)).data : undefined;
  if (before?.identity === identity) {
    made.rows.push(...before.rows);
    made.seconds += before.seconds;
    return folder;
  }
  hooks.note(`${task}, ${name}`);
  const started = performance.now();
  // Nothing of what was made otherwise, or half, is taken for this.
  await rm(folder, { recursive: true, force: true });
  await make(folder);
  const rows = await testRows(context, name, folder);
  const seconds = (performance.now() - started) / 1000;
  await writeText(path, { identity, rows, seconds });
  made.rows.push(...rows);
  made.seconds += seconds;
  return folder;
}

/** Scores of a whole model in a folder, its head among it. */
async function testRows(
  { options, task, seed, base, family: { canonical, head } }: OrdersContext,
  name: string,
  folder: string,
): Promise<ResultRow[]> {
  const whole = await openMember(task, folder, canonical);
  try {
    await writeHead(folder, whole, head);
  } finally {
    await whole.checkpoint.close();
  }
  const { data, maxLength, valPerTask, split, score, prompts, microBatch } = options;
  const { rows } = await evaluateFolder(
    { folder, base, data, tasks: [task], seed, maxLength, valPerTask, split, score, prompts, microBatch },
    name,
  );
  return rows;
}

const quiet = (hooks: MergeHooks): MergeHooks => ({ ...hooks, note: () => {} });

/** Fine-tunes the base, its examples in an order. */
async function learn(
  { options, finetuning, task, seed, base, hooks }: OrdersContext,
  out: string,
  order: number,
  epochs: number,
): Promise<void> {
  const { models: _, ...settings } = finetuning;
  const { data, batchSize, microBatch, maxLength, prompts, backend } = options;
  const done = await finetune(
    {
      ...settings,
      epochs,
      base,
      tasks: [task],
      data,
      out,
      how: "full",
      rank: 8,
      alpha: 16,
      weightDecay: 0.01,
      batchSize,
      microBatch,
      maxLength,
      prompts,
      seed,
      order,
      backend,
      resume: false,
      overwrite: true,
    },
    quiet(hooks),
  );
  if (!done) throw stopped();
}

/** Merges the models whole, and tests each merge. */
async function testMerges(context: OrdersContext, models: readonly string[]): Promise<void> {
  const { options, finetuning, seed, merges, hooks } = context;
  // The base with the head that all began with: what the task vectors are taken against.
  let start: string | undefined;
  const began = async (): Promise<string> => {
    if (start !== undefined) return start;
    start = join(context.out, "start");
    await rm(start, { recursive: true, force: true });
    await learn(context, start, 0, 0);
    return start;
  };
  for (const candidate of merges) {
    if (!("method" in candidate))
      throw new UserError(`${candidate.name}: only what trains nothing merges models of one task here`);
    const { name, method, given } = candidate;
    await testOnce(context, name, { merge: name, given, count: finetuning.models }, async (out) =>
      mergeFolders(
        {
          method,
          given: { ...("seed" in method.parameters && { seed }), ...given },
          base: await began(),
          models,
          out,
          dtype: "F32",
          shardSize: options.shardSize,
          overwrite: true,
        },
        quiet(hooks),
      ),
    );
  }
}

/**
 * Fine-tunes a base on one task several times, alike but for the order of the examples, merges the
 * models whole (heads too: all began from the same one), and tests each model and each merge. What is
 * done is not done again.
 * @throws Stopped where it was asked to stop
 */
export async function ordersOf(
  orders: Orders,
  hooks: MergeHooks,
): Promise<{ rows: ResultRow[]; seconds: number; inputs: InputHash[] }> {
  const { options, finetuning, task: id, seed } = orders;
  const { data, batchSize, maxLength, valPerTask, split, score } = options;
  const base = await locateBase(options);
  const task = at(pickTasks(await loadTasks(data), [id]), 0);
  const family = await readFamily(base);
  const { engine, hashes } = await engineAndFiles(orders, base, task, family);
  const inputs = [...hashes, ...(await dataHashes(orders, task))];
  const { models: count, ...settings } = finetuning;
  const shared = {
    version,
    engine,
    task: id,
    seed,
    settings,
    batchSize,
    maxLength,
    valPerTask,
    split,
    score,
  };
  const made = { rows: [], seconds: 0 };
  const context: OrdersContext = { ...orders, base, family, common: { ...shared, inputs }, hooks, made };
  const models: string[] = [];
  for (let order = 0; order < count; order++) {
    // Other orders at another seed.
    const model = await testOnce(context, `order ${order + 1}`, { order }, (folder) =>
      learn(context, folder, seed * 1000 + order, settings.epochs),
    );
    models.push(model);
  }
  await testMerges(context, models);
  return { ...made, inputs };
}
