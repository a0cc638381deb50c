import { rowsBatch } from "../../scripts/rows-batch.js";
import { join } from "node:path";
import { tensor, type Tensor } from "@tensorflow/tfjs-core";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { makeTable, type Table } from "../../src/merge/table.js";
import { columnOf } from "../../src/merge/source.js";
import { loadTaskVectors, type TaskVectors, type VectorOptions } from "../../src/merge/vectors.js";
import { bert } from "../../src/models/bert.js";
import type { Head } from "../../src/models/layers.js";
import type { Model, TokenRow } from "../../src/models/types.js";
import { disposeHead, loadHead } from "../../src/inputs/prepare.js";
import type { Batch } from "../../src/tasks/batches.js";
import { golden } from "../helpers.js";

export interface GoldenBatch {
  task: string;
  labels: number[];
  choices: number | null;
  ids: number[][];
  types: number[][];
  lengths: number[];
  base: number[][];
  individual: number[][];
  logits: number[][];
  loss: number;
  gradient: number[][];
}
export interface GoldenFamily {
  training?: { steps: number; lr: number; init: number; losses: number[] };
  tasks: string[];
  layers: string[];
  maxLength: number;
  batches: GoldenBatch[];
}

export const flat = (nested: unknown): number[] => (nested as number[][]).flat(1);
export const toTensor = (rows: number[] | number[][]): Tensor => tensor(rows as number[][]);

/** The table that scripts/golden/make.py uses. */
export const goldenTable = (rows: number, columns: number): Table =>
  makeTable(rows, columns, (r, c) => Math.fround(0.1 + 0.05 * ((r * 7 + c * 3) % 11)));

export const textRows = ({ ids, types, lengths }: GoldenBatch): TokenRow[] =>
  lengths.map((n, i) => ({ ids: ids[i]!.slice(0, n), types: types[i]!.slice(0, n) }));

/** Rows that a class, or one of some choices, is right for. */
export const rankedBatch = (
  rows: readonly TokenRow[],
  { labels, choices }: { readonly labels: readonly number[]; readonly choices?: number | null | undefined },
): Batch => rowsBatch(choices == null ? "classify" : "choose", rows, labels);

export const toBatch = (g: GoldenBatch): Batch => rankedBatch(textRows(g), g);

export interface Loaded {
  model: Model;
  vectors: TaskVectors;
  heads: Head[];
  golden: GoldenFamily;
  folder: string;
  name: string;
  dispose(): void;
}

/** A family with the golden values PyTorch made of it. */
export async function load(
  folder: string,
  name: string,
  options: Partial<VectorOptions> = {},
): Promise<Loaded> {
  const data = golden<GoldenFamily>(`family-${name}`);
  const base = await openMember("base", join(folder, "base"), bert.canonical);
  const model = bert.build(base.checkpoint.config);
  const family = await openFamily(
    base,
    data.tasks.map((task) => ({ task, folder: join(folder, "experts", task) })),
    bert.canonical,
  );
  const vectors = await loadTaskVectors(
    { base: family.base, columns: family.experts.map(columnOf) },
    [...model.parameters.keys()],
    { tables: model.tables, ...options },
  );
  const heads: Head[] = [];
  for (const expert of family.experts) heads.push((await loadHead(expert, bert.head, "row"))!);
  if (vectors.residency !== "disk") await family.close();
  return {
    model,
    vectors,
    heads,
    golden: data,
    folder,
    name,
    dispose: () => {
      vectors.dispose();
      heads.forEach(disposeHead);
      if (vectors.residency === "disk") void family.close();
    },
  };
}
