import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Family, Member } from "../checkpoint/family.js";
import { writeSafetensors, writeWeights, type TensorSource } from "../checkpoint/write.js";
import { UserError } from "../errors.js";
import { rowOf, type Table } from "../merge/table.js";
import { mergeOne, type TaskVectors } from "../merge/vectors.js";
import type { ModelFamily } from "../models/types.js";
import { heatmapSvg, svgToPng } from "../report/heatmap.js";
import { atomicFile, writeText } from "../checkpoint/files.js";
import { fromFloat32, isFloat, toFloat32, type FloatDType } from "../tensor/dtype.js";

/** What a tokenizer may consist of. */
const tokenizerFiles = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"];
/** Marks a folder as ours, so that a later run may write over it. */
const mark = "results.json";

/** What a write that was cut off by a kill may have left. */
const leftover = /\.[0-9a-f]{8}\.tmp$/;

/** Makes the output folder, or tidies up the one that an earlier run left. @throws UserError where it holds something that train-merge did not write. */
export async function openOutput(out: string): Promise<void> {
  await mkdir(out, { recursive: true });
  const files = await readdir(out);
  if (files.length && !files.includes(mark) && !files.includes("state.json")) {
    throw new UserError(`--out ${out}: the folder is not empty and was not written by train-merge; choose another`);
  }
  for (const file of files.filter((name) => leftover.test(name))) await rm(join(out, file));
}

/** Marks the folder as a run under way: its first state is saved, and the results of an earlier run are gone. */
export async function beginRun(out: string, saveFirst: () => Promise<void>): Promise<void> {
  await saveFirst();
  await rm(join(out, mark), { force: true });
}

/** Merges one tensor and encodes it. */
async function mergedBytes(vectors: TaskVectors, index: number, table: Table, dtype: FloatDType): Promise<Uint8Array> {
  const merged = mergeOne(vectors.merged[index]!, table);
  const values = (await merged.data()) as Float32Array;
  merged.dispose();
  return fromFloat32(values, dtype);
}

/**
 * Writes the merged model: the base's tensors in file order under the base's names. A tensor that no expert changed is
 * copied byte for byte (or converted, where `dtype` asks for another type). Holds one tensor at a time.
 */
export async function writeModel(out: string, family: Family, vectors: TaskVectors, table: Table, dtype: FloatDType | undefined, shardBytes: number): Promise<void> {
  const { base } = family;
  const mergedIndex = new Map(vectors.merged.map(({ name }, i) => [base.actual.get(name)!, i]));
  const sources = base.checkpoint.names.map((name): TensorSource => {
    const entry = base.checkpoint.entry(name)!;
    const target = isFloat(entry.dtype) ? (dtype ?? entry.dtype) : entry.dtype;
    const index = mergedIndex.get(name);
    return {
      name, dtype: target, shape: entry.shape,
      async bytes() {
        if (index !== undefined) return mergedBytes(vectors, index, table, target as FloatDType);
        const tensor = await base.checkpoint.read(name);
        return target === entry.dtype ? tensor.bytes : fromFloat32(toFloat32(tensor), target as FloatDType);
      },
    };
  });
  await writeWeights(out, sources, shardBytes);
  const names = { F32: "float32", F16: "float16", BF16: "bfloat16" };
  const { torch_dtype: _, ...config } = base.checkpoint.config;
  await writeText(join(out, "config.json"), { ...config, ...(dtype && { dtype: names[dtype] }) });
  for (const file of tokenizerFiles) {
    const from = join(base.checkpoint.folder, file);
    if (existsSync(from)) await writeText(join(out, file), await readFile(from, "utf8"));
  }
}

/** Writes a task's head as its expert has it, byte for byte, with the expert's config (label names). */
export async function writeHead(out: string, expert: Member, names: ModelFamily["head"]): Promise<void> {
  const folder = join(out, "heads", expert.label);
  const sources = [names.weight, names.bias].map((name): TensorSource => {
    const stored = expert.actual.get(name)!;
    const { dtype, shape } = expert.checkpoint.entry(stored)!;
    return { name, dtype, shape, bytes: async () => (await expert.checkpoint.read(stored)).bytes };
  });
  await writeSafetensors(join(folder, "head.safetensors"), sources);
  await writeText(join(folder, "config.json"), expert.checkpoint.config);
}

/** coefficients.csv, .json, .svg and .png: every layer and task, raw and gated. */
export async function writeCoefficients(out: string, vectors: TaskVectors, raw: Table, gated: Table, title: string): Promise<void> {
  const { layers, tasks } = vectors;
  const entries = layers.flatMap((layer, row) => tasks.map((task, column) => ({
    layer: layer.id, task, raw: rowOf(raw, row)[column]!, coefficient: rowOf(gated, row)[column]!,
  })));
  const csv = ["layer,task,raw,coefficient", ...entries.map(({ layer, task, raw: r, coefficient }) => `${layer},${task},${r},${coefficient}`)];
  await writeText(join(out, "coefficients.csv"), `${csv.join("\n")}\n`);
  await writeText(join(out, "coefficients.json"), { tasks, layers: layers.map(({ id, names }) => ({ id, names })), entries });
  const svg = await heatmapSvg({ title, tasks, layers: layers.map(({ id }) => id), values: layers.map((_, row) => Array.from(rowOf(gated, row))) });
  await writeText(join(out, "coefficients.svg"), svg);
  await atomicFile(join(out, "coefficients.png"), (write) => write(svgToPng(svg)));
}
