/** Whole inputs of every kind, small. */
import { columnFromArray, tableFromColumns, tableToIPC } from "@uwdata/flechette";
import { execFile } from "node:child_process";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { gzipSync, zipSync } from "fflate";
import { writeSafetensors } from "../../src/checkpoint/write.js";
import { mergeFile, runFile } from "../../src/folder/files.js";
import { packageFolder } from "../../src/package.js";
import { fromFloat32 } from "../../src/tensor/dtype.js";

const golden = (...path: string[]): string => join(packageFolder, "test", "golden", ...path);

/** A file of some floats in several types. */
async function writeWeights(path: string, names: readonly string[]): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const types = ["F32", "F16", "BF16"] as const;
  const sources = names.map((name, i) => {
    const dtype = types[i % types.length] ?? "F32";
    const values = Float32Array.from({ length: 12 }, (_, j) => Math.sin(i + j));
    return { name, dtype, shape: [3, 4], bytes: async () => fromFloat32(values, dtype) };
  });
  await writeSafetensors(path, sources);
}

/** A NumPy array of bytes as .npy. */
function npy(shape: readonly number[], values: Uint8Array): Uint8Array {
  const text = `{'descr': '|u1', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`;
  const header = Buffer.from(`${text.padEnd(117)}\n`);
  const front = Buffer.from([0x93, ...Buffer.from("NUMPY"), 1, 0, header.length & 255, header.length >> 8]);
  return Buffer.concat([front, header, values]);
}

async function writeData(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const text = await readFile(join(packageFolder, "data", "mini", "rte", "test.jsonl"), "utf8");
  const lines = text.split("\n").slice(0, 12);
  await writeFile(join(folder, "test.jsonl"), `${lines.join("\n")}\n`);
  const rows = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const keys = Object.keys(rows[0] ?? {});
  for (const [name, separator] of [
    ["test.csv", ","],
    ["test.tsv", "\t"],
  ] as const) {
    const cells = rows.map((row) => keys.map((key) => String(row[key])).join(separator));
    await writeFile(join(folder, name), [keys.join(separator), ...cells, ""].join("\n"));
  }
  await cp(golden("pictures", "texts.parquet"), join(folder, "test.parquet"));
  const columns = Object.fromEntries(
    keys.map((key) => [key, columnFromArray(rows.map((row) => row[key] as string | number))]),
  );
  await writeFile(join(folder, "test.arrow"), tableToIPC(tableFromColumns(columns), {}) ?? new Uint8Array());
  const pixels = Uint8Array.from({ length: 4 * 6 * 6 }, (_, i) => i);
  const archive = { "images.npy": npy([4, 6, 6], pixels), "labels.npy": npy([4], Uint8Array.of(0, 1, 2, 3)) };
  await writeFile(join(folder, "test.npz"), zipSync(archive));
  const idx = Buffer.concat([Buffer.from([0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 6]), pixels]);
  await writeFile(join(folder, "t10k-images-idx3-ubyte"), idx);
  await writeFile(join(folder, "t10k-images-idx3-ubyte.gz"), gzipSync(idx));
}

/** Rows of the kinds that are none of classes. */
const kindRows: Readonly<Record<string, readonly object[]>> = {
  stars: [1, 2.5, -3].map((score) => ({ text: "It rains.", score })),
  topics: [[0, 2], ["b"], []].map((labels) => ({ text: "It rains.", labels })),
  entities: [1, 2, 3].map((n) => ({ tokens: Array(n).fill("rain"), ner_tags: Array(n).fill(1) })),
  places: [{ question: "What?", context: "It rains.", answers: { text: ["rains"], answer_start: [3] } }],
};

const card = `---
license: apache-2.0
language: [en, de]
datasets:
  - org/data
tags: &tags [one, two]
---
# A model
`;

const settings = `tasks: rte,cb
steps: 20
lr: 0.01
method: supermerge
gate: tanh
backend: wasm
batch-size: 16
seed: 3
`;

const mergekit = `merge_method: ties
base_model: base
models:
  - model: a
    parameters:
      weight: [1, 0.5]
      density: 0.5
  - model: b
    parameters:
      weight:
        - filter: self_attn
          value: 0.3
        - value: 1
parameters:
  normalize: true
dtype: float32
tokenizer_source: union
`;

const templates = `dataset: rte
templates:
  one:
    name: one
    answer_choices: Yes ||| No
    jinja: "{{premise}} Does it follow that {{hypothesis}}? {% if label %}x{% endif %} ||| {{answer_choices[label]}}"
  two:
    name: two
    answer_choices: "True ||| False"
    jinja: |-
      {% for i in range(3) %}{{hypothesis | trim}} {% endfor %}
      |||
      {{ answer_choices[label] }}
`;

/** Makes the whole inputs. @param families folders of test/golden/models */
export async function makeWhole(whole: string, families: readonly string[]): Promise<void> {
  const put = async (path: string, text: string) => {
    await mkdir(dirname(join(whole, path)), { recursive: true });
    await writeFile(join(whole, path), text);
  };
  const config = JSON.stringify({ model_type: "llama", hidden_size: 4 });
  for (const [id, rows] of Object.entries(kindRows))
    await put(`kinds/${id}/test.jsonl`, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  await put("card/README.md", card);
  await writeWeights(join(whole, "weights", "model.safetensors"), ["a", "b.weight", "c", "d"]);
  await put("weights/config.json", config);
  const shards = { "model-1.safetensors": ["a", "b.weight"], "model-2.safetensors": ["c", "d"] };
  for (const [file, names] of Object.entries(shards)) await writeWeights(join(whole, "sharded", file), names);
  const map = Object.entries(shards).flatMap(([file, names]) => names.map((name) => [name, file] as const));
  const index = { metadata: { total_size: 144 }, weight_map: Object.fromEntries(map) };
  await put("sharded/model.safetensors.index.json", JSON.stringify(index));
  await put("sharded/config.json", config);
  for (const family of families)
    await cp(golden("models", family, "base"), join(whole, family), { recursive: true });
  for (const [name, from] of [
    ["lora", "lora-roberta"],
    ["ia3", "ia3-gpt2"],
  ] as const)
    for (const part of ["base", "a"])
      await cp(golden("adapters", from, part), join(whole, name, part), { recursive: true });
  await cp(join(packageFolder, "checkpoints", "mini", "base"), join(whole, "tokenizer"), { recursive: true });
  await cp(golden("tokenizers", "untied", "b"), join(whole, "bpe"), { recursive: true });
  await put("tasks/tasks.json", await readFile(join(packageFolder, "data", "tasks.json"), "utf8"));
  await put("prompts/rte/templates.yaml", templates);
  await writeData(join(whole, "data"));
  await cp(golden("pictures"), join(whole, "pictures"), { recursive: true });
  for (const label of ["base", "a", "b"])
    await cp(golden("tokenizers", "untied", label), join(whole, "mergekit", label), { recursive: true });
  await put("mergekit/merge.yml", mergekit);
  await put("settings/settings.yaml", settings);
  const run = join(whole, "run");
  const main = join(packageFolder, "dist", "src", "cli", "main.js");
  const args = ["--tasks", "rte,cb", "--steps", "2", "--backend", "wasm", "--out", run];
  await promisify(execFile)(process.execPath, [main, ...args]);
  // Paths are told from the folder: its copies lie elsewhere, and at another depth.
  const recorded = await runFile.read(run);
  await put("run/run.json", JSON.stringify(recorded));
  await mergeFile.write(run, {
    version: "0",
    method: "linear",
    base: "x",
    models: ["a", "b"],
    values: { weight: 1 },
  });
}
