import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { columnOf } from "../../src/merge/source.js";
import { applyGate, makeTable } from "../../src/merge/table.js";
import { loadTaskVectors, type TaskVectors } from "../../src/merge/vectors.js";
import { familyOf } from "../../src/models/index.js";
import { coefficientGradient } from "../../src/train/step.js";
import { rowsBatch } from "../rows-batch.js";
import { kinds, makeFamily } from "./families.js";

/** Two answers to a text: ids of the text, and of each answer. */
export interface Question {
  readonly text: readonly number[];
  readonly answers: readonly [readonly number[], readonly number[]];
}

/** What a merge with 0.3 of every task vector loses on each question, whose first answer is the right one. */
export interface RandomStep {
  readonly losses: number[];
  readonly gradient: number[];
}

/** A random decoder, opened on the engine that runs. */
export interface RandomDecoder {
  readonly vectors: TaskVectors;
  /** Its loss and ∂L/∂w on a question. */
  step(question: Question): Promise<RandomStep>;
  close(): Promise<void>;
}

/** Opens a random decoder of families.ts, which is made in `folder` unless it is there. */
export async function openRandom(kind: string, folder: string): Promise<RandomDecoder> {
  const { base, experts } = await makeFamily(kind, folder);
  const { config } = kinds[kind]!;
  const { canonical, build } = familyOf(config, base);
  const model = build(config);
  const sources = experts.map((expert) => expert.split("=") as [string, string]);
  const opened = await openFamily(
    await openMember("base", base, canonical),
    sources.map(([task, place]) => ({ task, folder: place })),
    canonical,
  );
  const columns = opened.experts.map(columnOf);
  const names = [...model.parameters.keys()];
  const vectors = await loadTaskVectors({ base: opened.base, columns }, names, { tables: model.tables });
  const table = applyGate(
    makeTable(vectors.layers.length, experts.length, () => 0.3),
    "tanh",
  );
  return {
    vectors,
    async step({ text, answers }) {
      const rows = answers.map((targets) => ({ ids: text, types: [], targets }));
      const job = { head: undefined, weight: 1, batch: rowsBatch("choose", rows, [0]) };
      const { losses, gradient } = await coefficientGradient(
        { model, vectors, table },
        [job],
        "cross-entropy",
      );
      return { losses, gradient: [...gradient.values] };
    },
    async close() {
      vectors.dispose();
      await opened.close();
    },
  };
}
