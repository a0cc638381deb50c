import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import type { EngineName } from "../backend/index.js";
import { readJson, writeText, digest } from "../checkpoint/files.js";
import { openMember } from "../checkpoint/family.js";
import { Stopped, UserError } from "../errors.js";
import { version } from "../package.js";
import { resultRow, type ResultRow } from "../report/rows.js";
import type { InputHash } from "../report/card.js";
import type { Candidate } from "../compare/candidates.js";
import { evaluateFolder } from "../run/evaluate.js";
import { finetune } from "../finetune/finetune.js";
import { locateBase } from "../inputs/locate.js";
import { mergeModels } from "../mergers/models.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { writeHead } from "../folder/output.js";
import { buildModel, encoderFor, readFamily, startFor } from "../inputs/prepare.js";
import { hashInputs, hashOf } from "../inputs/record.js";
import { loadTasks, pickTasks } from "../tasks/registry.js";
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

const made = z.object({ identity: z.string(), rows: z.array(resultRow), seconds: z.number() });

/**
 * Fine-tunes a base on one task several times, alike but for the order of the examples, merges the
 * models whole (heads too: all began from the same one), and tests each model and each merge. What is
 * done is not done again.
 * @throws Stopped where it was asked to stop
 */
export async function ordersOf(
  { options, finetuning, task: id, seed, merges, out }: Orders,
  hooks: MergeHooks,
): Promise<{ rows: ResultRow[]; seconds: number; inputs: InputHash[] }> {
  const base = await locateBase(options);
  const { data, maxLength, valPerTask, split, score, microBatch, backend, prompts } = options;
  const [task] = pickTasks(await loadTasks(data), [id]);
  const { canonical, head, outputLayers } = await readFamily(base);
  const inputs: InputHash[] = [];
  const origin = await openMember("base", base, canonical);
  let engine: EngineName;
  try {
    const model = buildModel(origin, outputLayers[0]!);
    engine = await startFor(model, backend);
    const encoder = await encoderFor(base, model, options);
    inputs.push(
      ...(await hashInputs(
        { base: origin, experts: [], close: origin.checkpoint.close },
        [],
        data,
        [],
        encoder.prompts?.([task!]),
      )),
    );
  } finally {
    await origin.checkpoint.close();
  }
  const { sources } = await trainingData(data, task!, seed);
  const {
    sources: { test },
  } = await loadTaskData(data, task!, { valPerTask, seed, split });
  for (const source of [...sources, test])
    inputs.push({ role: `${id}, data`, file: basename(source.name), sha256: await hashOf(source) });

  const { models: count, ...settings } = finetuning;
  const common = {
    version,
    engine,
    task: id,
    seed,
    settings,
    batchSize: options.batchSize,
    maxLength,
    valPerTask,
    split,
    score,
    inputs,
  };
  const rows: ResultRow[] = [];
  let seconds = 0;
  /** Makes a model in a folder, unless it stands there, and tests it. */
  async function tested(name: string, of: unknown, make: (folder: string) => Promise<void>): Promise<string> {
    if (hooks.stopping()) throw new Stopped("stopped; the same command goes on");
    const folder = join(out, name.replaceAll(/[ ,]+/g, "-"));
    const identity = digest({ ...common, of });
    const path = join(folder, "tested.json");
    const before = existsSync(path) ? made.safeParse(await readJson(path)).data : undefined;
    if (before?.identity === identity) {
      rows.push(...before.rows);
      seconds += before.seconds;
      return folder;
    }
    hooks.note(`${id}, ${name}`);
    const started = performance.now();
    // Nothing of what was made otherwise, or half, is taken for this.
    await rm(folder, { recursive: true, force: true });
    await make(folder);
    const whole = await openMember(id, folder, canonical);
    try {
      await writeHead(folder, whole, head);
    } finally {
      await whole.checkpoint.close();
    }
    const { rows: mine } = await evaluateFolder(
      { folder, base, data, tasks: [id], seed, maxLength, valPerTask, split, score, prompts, microBatch },
      name,
    );
    const took = (performance.now() - started) / 1000;
    await writeText(path, { identity, rows: mine, seconds: took });
    rows.push(...mine);
    seconds += took;
    return folder;
  }

  const quiet = { ...hooks, note: () => {} };
  const learn = async (folder: string, order: number, epochs: number) => {
    const done = await finetune(
      {
        ...settings,
        epochs,
        base,
        tasks: [id],
        data,
        out: folder,
        how: "full",
        rank: 8,
        alpha: 16,
        weightDecay: 0.01,
        batchSize: options.batchSize,
        microBatch,
        maxLength,
        prompts,
        seed,
        order,
        backend,
        resume: false,
      },
      quiet,
    );
    if (!done) throw new Stopped("stopped; the same command goes on");
  };
  // Other orders at another seed.
  const orderOf = (order: number) => seed * 1000 + order;
  const models: string[] = [];
  for (let order = 0; order < count; order++)
    models.push(
      await tested(`order ${order + 1}`, { order }, (folder) =>
        learn(folder, orderOf(order), settings.epochs),
      ),
    );
  // The base with the head that all began with: what the task vectors are taken against.
  let start: string | undefined;
  const began = async () => {
    if (start === undefined) {
      start = join(out, "start");
      await rm(start, { recursive: true, force: true });
      await learn(start, 0, 0);
    }
    return start;
  };
  for (const candidate of merges) {
    if (!("method" in candidate))
      throw new UserError(`${candidate.name}: only what trains nothing merges models of one task here`);
    await tested(candidate.name, { merge: candidate.name, given: candidate.given, count }, async (folder) =>
      mergeModels(
        {
          method: candidate.method,
          given: { ...("seed" in candidate.method.parameters && { seed }), ...candidate.given },
          base: await began(),
          models,
          out: folder,
          dtype: "F32",
          shardSize: options.shardSize,
        },
        quiet,
      ),
    );
  }
  return { rows, seconds, inputs };
}
