/** What the benchmark runs on: real families, and random ones. */
import { locate } from "../../src/inputs/locate.js";
import { bucketed, choicesOf } from "../../src/tasks/batches.js";
import { encodeMixed, textRows } from "../../src/tasks/encoders.js";
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
}

/** Experts of a family on disk; where k is more than it has, they come round again (the arithmetic is the same). */
export async function realCase(
  family: string,
  tasks: readonly string[],
  k: number,
  data: string,
  batchSize: number,
): Promise<Case> {
  const ids = Array.from({ length: k }, (_, i) => tasks[i % tasks.length]!);
  const places = await locate({ family, tasks: [...tasks] });
  const encoder = await loadTokenizer(places.base, 128);
  const known = await loadTasks(data);
  const batches: PlainBatch[] = [];
  for (const task of pickTasks(known, [...tasks])) {
    const { validation } = await loadTaskData(data, task, { valPerTask: batchSize, seed: 0 });
    const batch = bucketed(encodeMixed(validation, textRows(encoder), task), 1e9)[0]!;
    const { rows, labels } = batch;
    const length = Math.max(...rows.map(({ ids: row }) => row.length));
    const padded = (of: (row: (typeof rows)[number]) => readonly number[]) =>
      rows.flatMap((row) => [...of(row), ...repeated(0, length - row.ids.length)]);
    batches.push({
      size: rows.length,
      length,
      ids: padded((r) => r.ids),
      types: padded((r) => r.types),
      mask: padded((r) => r.ids.map(() => 1)),
      labels: [...labels],
      choices: choicesOf(batch) ?? null,
    });
  }
  const folderOf = new Map(places.sources.map(({ label, folder }) => [label, folder]));
  return {
    what: `${family}, k = ${k}`,
    base: places.base,
    experts: ids.map((task) => `${task}=${folderOf.get(task)!}`),
    batches: ids.map((task) => batches[tasks.indexOf(task)]!),
  };
}

const repeated = (value: number, count: number): number[] => Array.from({ length: count }, () => value);

/**
 * A family of random weights (scripts/gpu/families.ts), made in `folder` unless it is there; rows of
 * random tokens without padding.
 */
export async function randomCase(kind: string, folder: string, rows: number, length: number): Promise<Case> {
  const { what, config } = kinds[kind]!;
  const { base, experts } = await makeFamily(kind, folder);
  const vocabulary = config["vocab_size"] as number;
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
  return { what: `${what}, k = ${experts.length}`, base, experts, batches };
}
