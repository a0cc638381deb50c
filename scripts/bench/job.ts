/** The family, batches and step that worker.ts times and profile.ts takes apart. */
import { rowsBatch } from "../rows-batch.js";
import { z } from "zod";
import { at } from "../../src/at.js";
import { engineNamed, engineNames } from "../../src/backend/index.js";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { readJson } from "../../src/checkpoint/files.js";
import { loadHead, readModel, startFor } from "../../src/inputs/prepare.js";
import { columnOf } from "../../src/merge/source.js";
import { applyGate, makeTable, throughGate, type Table } from "../../src/merge/table.js";
import { loadTaskVectors, type TaskVectors } from "../../src/merge/vectors.js";
import type { Model } from "../../src/models/types.js";
import type { Batch } from "../../src/tasks/batches.js";
import { adamDefaults, adamW, zeroMoments } from "../../src/train/adamw.js";
import type { StepJob } from "../../src/train/passes.js";
import { coefficientGradient } from "../../src/train/step.js";

const numbers = z.array(z.number());

/** A batch as JSON, the same for PyTorch: rows padded to one length, one after the other. */
const plainBatch = z.object({
  size: z.number(),
  length: z.number(),
  ids: numbers,
  types: numbers,
  mask: numbers,
  labels: numbers,
  choices: z.number().nullable(),
});
export type PlainBatch = z.infer<typeof plainBatch>;

/** Coefficients start at tanh(0.30952) = 0.3 on both sides. */
const rawStart = 0.30952;

/** The table that training starts from, before the gate. */
export const startTable = ({ layers, experts }: TaskVectors): Table =>
  makeTable(layers.length, experts.length, () => rawStart);

export interface BenchJob {
  readonly model: Model;
  readonly vectors: TaskVectors;
  readonly jobs: readonly StepJob[];
  /** One step: losses, and the gradient of the raw table that it took. */
  step(): Promise<{ losses: number[]; gradient: Table }>;
}

/** Rows without their padding. */
function unpadded({ size, length, ids, types, mask, labels, choices }: PlainBatch): Batch {
  const rows = Array.from({ length: size }, (_, r) => {
    const start = r * length;
    const tokens = mask.slice(start, start + length).filter((one) => one === 1).length;
    return { ids: ids.slice(start, start + tokens), types: types.slice(start, start + tokens) };
  });
  return rowsBatch(choices === null ? "classify" : "choose", rows, labels);
}

/** "task=folder" */
function expertFolder(expert: string): { task: string; folder: string } {
  const [task = "", ...rest] = expert.split("=");
  return { task, folder: rest.join("=") };
}

/** Loads what `worker.js ENGINE BASE BATCHES TASK=EXPERT…` names. */
export async function loadJob(args: readonly string[]): Promise<BenchJob> {
  const [engine, baseFolder = "", batchFile = "", ...experts] = args;
  const batches = z.array(plainBatch).parse(await readJson(batchFile));
  const { family: modelFamily, model } = await readModel(baseFolder);
  await startFor(model, z.enum(engineNames).parse(engine));
  const family = await openFamily(
    await openMember("base", baseFolder, modelFamily.canonical),
    experts.map(expertFolder),
    modelFamily.canonical,
  );
  const vectors = await loadTaskVectors(
    { base: family.base, columns: family.experts.map(columnOf) },
    [...model.parameters.keys()],
    // As a run has it that has room.
    { tables: model.tables, holdsTables: !engineNamed(at(args, 0)).deviceMemory().shared },
  );
  const jobs: StepJob[] = [];
  for (const [i, batch] of batches.entries())
    jobs.push({
      head: await loadHead(at(family.experts, i), modelFamily.head, "row"),
      batch: unpadded(batch),
      weight: 1,
    });
  let raw = startTable(vectors);
  let moments = zeroMoments(raw.values.length);
  return {
    model,
    vectors,
    jobs,
    async step() {
      const table = applyGate(raw, "tanh");
      const found = await coefficientGradient({ model, vectors, table }, jobs, "cross-entropy");
      const gradient = throughGate(found.gradient, raw, "tanh");
      ({ raw, moments } = adamW(raw, gradient, moments, { ...adamDefaults, lr: 0.03 }));
      return { losses: found.losses, gradient };
    },
  };
}
