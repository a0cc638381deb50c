import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { tensor, type Tensor } from "@tensorflow/tfjs-core";
import { openMember, type Member } from "../checkpoint/family.js";
import { readJson } from "../checkpoint/files.js";
import { openCheckpoint } from "../checkpoint/folder.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { UserError } from "../errors.js";
import { evaluateTasks } from "../evaluate/evaluate.js";
import { toRows } from "../evaluate/baselines.js";
import { familyOf } from "../models/index.js";
import type { Model } from "../models/types.js";
import type { ResultRow } from "../report/rows.js";
import { loadTasks, pickTasks } from "../tasks/registry.js";
import { loadTokenizer } from "../tasks/tokenize.js";
import { checkFamily, checkVocabulary } from "./check.js";
import { shippedData } from "./locate.js";
import { loadHead, prepareTask } from "./prepare.js";

/** Loads every tensor the model reads, as float32. */
export async function loadWeights(member: Member, model: Model): Promise<{ weights: (name: string) => Tensor; dispose: () => void }> {
  const loaded = new Map<string, Tensor>();
  for (const name of model.parameters.keys()) {
    const { values, shape } = await member.weights(name);
    loaded.set(name, tensor(values, [...shape], "float32"));
  }
  return { weights: (name) => loaded.get(name)!, dispose: () => loaded.forEach((t) => t.dispose()) };
}

/** A head that `writeHead` wrote, seen as a checkpoint of its own. */
export async function openHead(folder: string, task: string, canonical: (name: string) => string): Promise<Member> {
  const path = join(folder, "heads", task, "head.safetensors");
  if (!existsSync(path)) throw new UserError(`${folder}: it has no head for ${task} (heads/${task}/head.safetensors)`);
  const file = await openSafetensors(path);
  const config = (await readJson(join(folder, "heads", task, "config.json"))) as Record<string, unknown>;
  const names = [...file.entries.keys()];
  const checkpoint = { folder, config, names, files: [], entry: (name: string) => file.entries.get(name), read: file.read, close: file.close };
  return {
    label: task, checkpoint, actual: new Map(names.map((name) => [canonical(name), name])),
    async weights(name) {
      const { toFloat32 } = await import("../tensor/dtype.js");
      const stored = await file.read(name);
      return { shape: stored.shape, values: toFloat32(stored) };
    },
  };
}

export interface EvaluateOptions {
  readonly folder: string;
  readonly tasks?: readonly string[] | undefined;
  readonly data?: string | undefined;
  readonly seed: number;
  readonly maxLength: number;
  readonly valPerTask: number;
}

/** Measures a merged model from its written files alone: its folder, its heads, the data. */
export async function evaluateFolder(options: EvaluateOptions, method = "merged"): Promise<{ rows: ResultRow[]; synthetic: boolean }> {
  const { folder, data = shippedData } = options;
  const probe = await openCheckpoint(folder);
  const family = familyOf(probe.config, folder);
  const model = family.build(probe.config);
  await probe.close();
  const member = await openMember("merged", folder, family.canonical);
  try {
    checkFamily({ base: member, experts: [], close: member.checkpoint.close }, model);
    const headFolder = join(folder, "heads");
    if (!existsSync(headFolder)) throw new UserError(`${folder}: there is no heads/ in it; was it written by train-merge?`);
    const tasks = pickTasks(await loadTasks(data), options.tasks ?? (await readdir(headFolder)).sort());
    const encoder = await loadTokenizer(folder, Math.min(options.maxLength, model.maxLength));
    checkVocabulary(folder, encoder, model);
    const prepared = [];
    for (const task of tasks) {
      const head = await openHead(folder, task.id, family.canonical);
      prepared.push(await prepareTask(task, await loadHead(head, family.head), head.checkpoint.config, encoder, { ...options, data }));
      await head.checkpoint.close();
    }
    const { weights, dispose } = await loadWeights(member, model);
    const scores = await evaluateTasks(model, weights, prepared, "test");
    dispose();
    prepared.forEach(({ head }) => [head.weight, head.bias].forEach((t) => t.dispose()));
    return { rows: toRows(method, prepared, scores, "test", options.seed), synthetic: prepared.some(({ synthetic }) => synthetic) };
  } finally {
    await member.checkpoint.close();
  }
}
