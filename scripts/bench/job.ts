/** The family, batches and step that worker.ts times and profile.ts takes apart. */
import { readFile } from "node:fs/promises";
import type { EngineName } from "../../src/backend/index.js";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { applyGate, makeTable, throughGate } from "../../src/merge/table.js";
import { columnOf } from "../../src/merge/source.js";
import { loadTaskVectors, type TaskVectors } from "../../src/merge/vectors.js";
import type { Model } from "../../src/models/types.js";
import { loadHead, readModel, startFor } from "../../src/inputs/prepare.js";
import { adamDefaults, adamW, zeroMoments } from "../../src/train/adamw.js";
import type { StepJob } from "../../src/train/passes.js";
import { coefficientGradient } from "../../src/train/step.js";

/** A batch as JSON, the same for PyTorch. */
export interface PlainBatch {
  size: number;
  length: number;
  ids: number[];
  types: number[];
  mask: number[];
  labels: number[];
  choices: number | null;
}

/** Coefficients start at tanh(0.30952) = 0.3 on both sides. */
const rawStart = 0.30952;

export interface BenchJob {
  model: Model;
  vectors: TaskVectors;
  jobs: StepJob[];
  step(): Promise<number[]>;
}

/** Loads what `worker.js ENGINE BASE BATCHES TASK=EXPERT…` names. */
export async function loadJob([engine, baseFolder, batchFile, ...experts]: [
  EngineName,
  string,
  string,
  ...string[],
]): Promise<BenchJob> {
  const batches = JSON.parse(await readFile(batchFile, "utf8")) as PlainBatch[];
  const { family: modelFamily, model } = await readModel(baseFolder);
  await startFor(model, engine);
  const family = await openFamily(
    await openMember("base", baseFolder, modelFamily.canonical),
    experts.map((expert) => {
      const [task, folder] = expert.split("=") as [string, string];
      return { task, folder };
    }),
    modelFamily.canonical,
  );
  const vectors = await loadTaskVectors(
    { base: family.base, columns: family.experts.map(columnOf) },
    [...model.parameters.keys()],
    { tables: model.tables },
  );
  const jobs: StepJob[] = [];
  for (const [i, { size, length, ids, types, mask, labels, choices }] of batches.entries()) {
    const lengths = Array.from({ length: size }, (_, r) =>
      mask.slice(r * length, (r + 1) * length).reduce((a, b) => a + b, 0),
    );
    const rows = lengths.map((n, r) => ({
      ids: ids.slice(r * length, r * length + n),
      types: types.slice(r * length, r * length + n),
    }));
    jobs.push({
      head: await loadHead(family.experts[i]!, modelFamily.head),
      batch:
        choices === null ? { kind: "classify", rows, labels } : { kind: "choose", rows, labels, choices },
      weight: 1,
    });
  }
  let raw = makeTable(vectors.layers.length, experts.length, () => rawStart);
  let moments = zeroMoments(raw.values.length);
  return {
    model,
    vectors,
    jobs,
    async step() {
      const { gradient, losses } = await coefficientGradient(
        { model, vectors, table: applyGate(raw, "tanh") },
        jobs,
        "cross-entropy",
      );
      ({ raw, moments } = adamW(raw, throughGate(gradient, raw, "tanh"), moments, {
        ...adamDefaults,
        lr: 0.03,
      }));
      return losses;
    },
  };
}
