import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { isAdapter } from "../checkpoint/adapter.js";
import { openExpert, openMember } from "../checkpoint/family.js";
import { readJson } from "../checkpoint/files.js";
import { UserError } from "../errors.js";
import { evaluateTasks, type TaskScore } from "../evaluate/evaluate.js";
import { toRows } from "../evaluate/baselines.js";
import { generativeModel } from "../evaluate/generate.js";
import type { Merge } from "../evaluate/merge.js";
import { generations, type GeneratedText } from "../evaluate/generations.js";
import { makeTable } from "../merge/table.js";
import { loadTaskVectors } from "../merge/vectors.js";
import type { Head } from "../models/head.js";
import type { Placement } from "../plan/memory.js";
import type { ResultRow } from "../report/rows.js";
import { loadTasks, pickTasks } from "../tasks/registry.js";
import { splitNames, type SplitName } from "../tasks/split.js";
import { checkFamily, checkHead, checkVocabulary } from "../inputs/check.js";
import { shippedData } from "../inputs/locate.js";
import { openHead } from "../inputs/heads.js";
import { buildModel, disposeHead, encoderFor, loadHead, prepareTask, readFamily } from "../inputs/prepare.js";

/** The settings of the run that wrote a folder, as far as they decide which examples are its test set. */
async function runSettings(
  folder: string,
): Promise<Partial<Pick<EvaluateOptions, "seed" | "maxLength" | "valPerTask" | "split" | "score">>> {
  const path = join(folder, "results.json");
  if (!existsSync(path)) return {};
  const found = resultsFile.safeParse(await readJson(path));
  return found.success ? found.data.settings : {};
}

const resultsFile = z.object({
  settings: z
    .object({
      seed: z.number(),
      maxLength: z.number(),
      valPerTask: z.number(),
      split: z.enum(splitNames),
      score: z.enum(["sum", "mean"]),
    })
    .partial(),
});

export interface EvaluateOptions {
  readonly folder: string;
  /** The model that an adapter belongs to. */
  readonly base?: string | undefined;
  /** Where the weights live meanwhile, and whether the model runs by blocks (default: all on the device). */
  readonly placement?: Placement | undefined;
  readonly prompts?: string | undefined;
  readonly score?: "sum" | "mean" | undefined;
  readonly microBatch?: number | undefined;
  /** Of how many test examples a task it is told what the model says to them. */
  readonly show?: number | undefined;
  readonly tasks?: readonly string[] | undefined;
  readonly data?: string | undefined;
  /** These three default to what the run that wrote the folder used: a task with one file only is cut by them. */
  readonly seed?: number | undefined;
  readonly maxLength?: number | undefined;
  readonly valPerTask?: number | undefined;
  readonly split?: SplitName | undefined;
}

/** The folder with the model's config and tokenizer: an adapter's is its base. */
export function homeOf({ folder, base }: Pick<EvaluateOptions, "folder" | "base">): string {
  if (!isAdapter(folder)) return folder;
  if (base === undefined)
    throw new UserError(`${folder}: it is an adapter: name the model that it belongs to with --base`);
  return base;
}

/** Measures a merged model from its written files alone: its folder, its heads, the data. */
export async function evaluateFolder(
  options: EvaluateOptions,
  method = "merged",
): Promise<{
  rows: ResultRow[];
  scores: Record<string, TaskScore>;
  synthetic: boolean;
  said: GeneratedText[];
}> {
  const { folder, data = shippedData } = options;
  const saved = await runSettings(folder);
  const {
    seed = saved.seed ?? 0,
    maxLength = saved.maxLength ?? 128,
    valPerTask = saved.valPerTask ?? 32,
    split = saved.split ?? "files",
    score = saved.score ?? "sum",
  } = options;
  const home = homeOf(options);
  const adapter = home !== folder;
  const family = await readFamily(home);
  const base = await openMember("merged", home, family.canonical);
  const merged = adapter
    ? await openExpert("merged", folder, base, family.canonical).catch(async (error: unknown) => {
        await base.checkpoint.close();
        throw error;
      })
    : base;
  const heads: (Head | undefined)[] = [];
  try {
    const headFolder = join(folder, "heads");
    if (!existsSync(headFolder))
      throw new UserError(`${folder}: there is no heads/ in it; was it written by train-merge?`);
    const tasks = pickTasks(await loadTasks(data), options.tasks ?? (await readdir(headFolder)).sort());
    const scores = !tasks.every(({ id }) => existsSync(join(headFolder, id, "head.safetensors")));
    const outputLayer = scores && family.outputLayers.includes("score") ? "score" : "pool";
    const model = buildModel(merged, outputLayer);
    const names = outputLayer === "score" ? undefined : family.head;
    checkFamily({ base: merged, experts: [], close: merged.checkpoint.close }, model);
    const encoder = await encoderFor(home, model, { maxLength, prompts: options.prompts, score });
    checkVocabulary(home, encoder, model);
    const prepared = [];
    for (const task of tasks) {
      if (!names) {
        prepared.push(await prepareTask(task, undefined, {}, encoder, { data, valPerTask, seed, split }));
        continue;
      }
      const expert = await openHead(folder, task.id, family.canonical);
      try {
        checkHead(expert, names, model, task);
        const head = await loadHead(expert, names);
        heads.push(head);
        prepared.push(
          await prepareTask(task, head, expert.checkpoint.config, encoder, { data, valPerTask, seed, split }),
        );
      } finally {
        await expert.checkpoint.close();
      }
    }
    const vectors = await loadTaskVectors({ base: merged, columns: [] }, [...model.parameters.keys()], {
      residency: options.placement?.residency,
      tables: model.tables,
    });
    try {
      const merge: Merge = {
        model,
        vectors,
        table: makeTable(0, 0, () => 0),
        blockwise: options.placement?.blockwise,
        microBatch: options.microBatch,
      };
      if (options.show) generativeModel(model);
      const scores = await evaluateTasks(merge, prepared, "test");
      return {
        said: options.show ? await generations(merge, prepared, options.show) : [],
        rows: toRows(method, prepared, scores, seed),
        scores: Object.fromEntries(prepared.map(({ id }, i) => [id, scores[i]!])),
        synthetic: prepared.some(({ synthetic }) => synthetic),
      };
    } finally {
      vectors.dispose();
    }
  } finally {
    heads.forEach(disposeHead);
    await merged.checkpoint.close();
    if (adapter) await base.checkpoint.close();
  }
}
