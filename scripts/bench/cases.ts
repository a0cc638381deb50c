/** What the benchmark runs on: real families, and a synthetic encoder of any size. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeSafetensors, type TensorSource } from "../../src/checkpoint/write.js";
import { bert } from "../../src/models/bert.js";
import { locate } from "../../src/run/locate.js";
import { bucketed } from "../../src/tasks/batches.js";
import { encodeExamples } from "../../src/tasks/encoders.js";
import { loadTasks, pickTasks } from "../../src/tasks/registry.js";
import { loadTaskData } from "../../src/tasks/split.js";
import { loadTokenizer } from "../../src/tasks/tokenize.js";
import type { PlainBatch } from "./job.js";

export interface Case {
  readonly what: string;
  readonly base: string;
  /** "task=folder" */
  readonly experts: readonly string[];
  readonly batches: readonly PlainBatch[];
}

/** Experts of a family on disk; where k is more than it has, they come round again (the arithmetic is the same). */
export async function realCase(family: string, tasks: readonly string[], k: number, data: string, batchSize: number): Promise<Case> {
  const ids = Array.from({ length: k }, (_, i) => tasks[i % tasks.length]!);
  const places = await locate({ family, tasks: [...tasks] });
  const encoder = await loadTokenizer(places.base, 128);
  const known = await loadTasks(data);
  const batches: PlainBatch[] = [];
  for (const task of pickTasks(known, [...tasks])) {
    const { validation } = await loadTaskData(data, task, batchSize, 0);
    const { rows, labels, choices } = bucketed(encodeExamples(validation, encoder), 1e9, task.kind === "choice")[0]!;
    const length = Math.max(...rows.map(({ ids: row }) => row.length));
    const padded = (of: (row: (typeof rows)[number]) => readonly number[]) => rows.flatMap((row) => [...of(row), ...repeated(0, length - row.ids.length)]);
    batches.push({ size: rows.length, length, ids: padded((r) => r.ids), types: padded((r) => r.types), mask: padded((r) => r.ids.map(() => 1)), labels: [...labels], choices: choices ?? null });
  }
  const folderOf = new Map(places.sources.map(({ label, folder }) => [label, folder]));
  return { what: `${family}, k = ${k}`, base: places.base, experts: ids.map((task) => `${task}=${folderOf.get(task)!}`), batches: ids.map((task) => batches[tasks.indexOf(task)]!) };
}

const repeated = (value: number, count: number): number[] => Array.from({ length: count }, () => value);

/** Numbers in (−1, 1) from a seed: quick, and good enough to multiply. */
function noise(size: number, seed: number, scale: number): Float32Array {
  const out = new Float32Array(size);
  let state = (seed * 2654435761 + 12345) >>> 0;
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = (state / 2147483648 - 1) * scale;
  }
  return out;
}

/** A BERT of `layers` × `hidden` with random weights and k experts near it, written to `folder`; rows without padding. */
export async function syntheticCase(folder: string, layers: number, hidden: number, k: number, rows: number, length: number): Promise<Case> {
  const config = {
    model_type: "bert", architectures: ["BertForSequenceClassification"], hidden_size: hidden, num_hidden_layers: layers, num_attention_heads: hidden / 64, intermediate_size: 4 * hidden,
    vocab_size: 30522, max_position_embeddings: 512, type_vocab_size: 2, layer_norm_eps: 1e-12, pad_token_id: 0, hidden_act: "gelu", id2label: { 0: "a", 1: "b" }, label2id: { a: 0, b: 1 },
  };
  const model = bert.build(config);
  const write = async (place: string, expert: number) => {
    await mkdir(place, { recursive: true });
    await writeFile(join(place, "config.json"), JSON.stringify(config));
    const values = (name: string, shape: readonly number[], index: number): Float32Array => {
      const size = shape.reduce((a, b) => a * b, 1);
      const base = noise(size, index, name.includes("LayerNorm") ? 0.01 : 0.03);
      if (name.endsWith("LayerNorm.weight")) base.forEach((x, i) => (base[i] = 1 + x));
      if (expert > 0) noise(size, 1000 * expert + index, 0.003).forEach((x, i) => (base[i]! += x));
      return base;
    };
    const head = expert > 0 ? ([["classifier.weight", [2, hidden]], ["classifier.bias", [2]]] as [string, number[]][]) : [];
    const sources = [...[...model.parameters].map(([name, shape]) => [expert > 0 ? `bert.${name}` : name, shape] as const), ...head].map(([name, shape], index): TensorSource => ({
      name, shape: [...shape], dtype: "F32", bytes: async () => new Uint8Array(values(name, shape, index).buffer),
    }));
    await writeSafetensors(join(place, "model.safetensors"), sources);
  };
  for (let expert = 0; expert <= k; expert++) await write(join(folder, String(expert)), expert);
  const tokens = (seed: number) => Array.from(noise(rows * length, seed, 1), (x) => 1000 + Math.floor(Math.abs(x) * 20_000));
  const batches = Array.from({ length: k }, (_, i): PlainBatch => ({
    size: rows, length, ids: tokens(i), types: repeated(0, rows * length), mask: repeated(1, rows * length), labels: Array.from({ length: rows }, (_, r) => r % 2), choices: null,
  }));
  return { what: `encoder ${layers} × ${hidden}, k = ${k}`, base: join(folder, "0"), experts: batches.map((_, i) => `task${i}=${join(folder, String(i + 1))}`), batches };
}
