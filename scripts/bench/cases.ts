/** What the benchmark runs on: real families, and random ones. */
import { join } from "node:path";
import { z } from "zod";
import { at, lookUp } from "../../src/at.js";
import { readJson } from "../../src/checkpoint/files.js";
import { locate } from "../../src/inputs/locate.js";
import type { TokenRow } from "../../src/models/types.js";
import { bucketed, choicesOf, batchLabels } from "../../src/tasks/batches.js";
import { encodeMixed } from "../../src/tasks/encoders.js";
import { textRows } from "../../src/tasks/head-rows.js";
import { loadTasks, pickTasks } from "../../src/tasks/registry.js";
import { loadTaskData } from "../../src/tasks/split.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import { kinds, makeFamily } from "../gpu/families.js";
import type { PlainBatch } from "./job.js";

export interface Case {
  readonly what: string;
  readonly base: string;
  /** "task=folder" */
  readonly experts: readonly string[];
  readonly batches: readonly PlainBatch[];
  readonly width: number;
}

/** Token places of a step, and how many of them hold a token. */
export function tokensOf({ batches }: Pick<Case, "batches">): { padded: number; real: number } {
  const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
  return {
    padded: sum(batches.map(({ size, length }) => size * length)),
    real: sum(batches.map(({ mask }) => sum(mask))),
  };
}

const widthSchema = z.object({ hidden_size: z.number() });

const widthOf = async (base: string): Promise<number> =>
  widthSchema.parse(await readJson(join(base, "config.json"))).hidden_size;

const repeated = (value: number, count: number): number[] => Array.from({ length: count }, () => value);

/** Rows padded to the longest of them, one after the other. */
function padBatch(
  rows: readonly TokenRow[],
  labels: readonly number[],
  choices: number | undefined,
): PlainBatch {
  const length = Math.max(...rows.map(({ ids }) => ids.length));
  const padded = (valuesOf: (row: TokenRow) => readonly number[]) =>
    rows.flatMap((row) => [...valuesOf(row), ...repeated(0, length - row.ids.length)]);
  return {
    size: rows.length,
    length,
    ids: padded(({ ids }) => ids),
    types: padded(({ types }) => types),
    mask: padded(({ ids }) => repeated(1, ids.length)),
    labels: [...labels],
    choices: choices ?? null,
  };
}

const examplesATask = 16;

/** Experts of a family on disk; where k is more than it has, they come round again (the arithmetic is the same). */
export async function realCase({
  family,
  tasks,
  k,
  data,
}: {
  family: string;
  tasks: readonly string[];
  k: number;
  data: string;
}): Promise<Case> {
  const ids = Array.from({ length: k }, (_, i) => at(tasks, i % tasks.length));
  const places = await locate({ family, tasks: [...tasks] });
  const encoder = textRows(await loadTokenizer(places.base, 128));
  const batches = new Map<string, PlainBatch>();
  for (const task of pickTasks(await loadTasks(data), [...tasks])) {
    const { validation } = await loadTaskData(data, task, { valPerTask: examplesATask, seed: 0 });
    const batch = at(bucketed(encodeMixed(validation, encoder, task), Infinity), 0);
    batches.set(task.id, padBatch(batch.rows, batchLabels(batch), choicesOf(batch)));
  }
  const folders = new Map(places.sources.map(({ label, folder }) => [label, folder]));
  return {
    what: `${family}, k = ${k}`,
    base: places.base,
    experts: ids.map((task) => `${task}=${lookUp(folders, task)}`),
    batches: ids.map((task) => lookUp(batches, task)),
    width: await widthOf(places.base),
  };
}

/**
 * A family of random weights (scripts/gpu/families.ts), made in `folder` unless it is there; rows of
 * random tokens without padding.
 */
export async function randomCase(kind: string, folder: string, rows: number, length: number): Promise<Case> {
  const found = kinds[kind];
  if (!found) throw new Error(`${kind}: no family of scripts/gpu/families.ts has that name`);
  const { base, experts } = await makeFamily(kind, folder);
  const { vocab_size: vocabulary } = z.object({ vocab_size: z.number() }).parse(found.config);
  const batches = experts.map((_, task): PlainBatch => ({
    size: rows,
    length,
    ids: Array.from(
      { length: rows * length },
      (_id, i) => 1000 + ((i * 7919 + task * 104_729) % (vocabulary - 1000)),
    ),
    types: repeated(0, rows * length),
    mask: repeated(1, rows * length),
    labels: Array.from({ length: rows }, (_label, r) => r % 2),
    choices: null,
  }));
  return { what: `${found.what}, k = ${experts.length}`, base, experts, batches, width: await widthOf(base) };
}
