/**
 * Families too large for a small machine's memory, merged from disk a block at a time: how much device memory a
 * training step takes. Their shapes are published models'; their numbers are made here.
 *
 *   node dist/scripts/bench/large.js --shape t0-3b --header experiments/t0-3b
 *   node dist/scripts/bench/large.js --shape qwen3-1.7b --make --k 3
 *   node dist/scripts/bench/large.js --shape qwen3-1.7b --k 3 --steps 3 --backend node --out experiments/qwen3-1.7b
 *
 * --header writes config.json and header.json; --make writes sparse files (checkpoints/SHAPE), whose holes read as
 * zeros. Each tensor has its first rows filled, differently in every model, so that every expert changes every
 * tensor; the rest are zeros, which cost as much to read, subtract, merge and multiply as any other
 * numbers.
 */
import { rowsBatch } from "../rows-batch.js";
import { mkdir, open, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { at, lookUp } from "../../src/at.js";
import { engineNames, startEngine, watchMemory } from "../../src/backend/index.js";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { traffic } from "../../src/checkpoint/safetensors.js";
import { columnOf } from "../../src/merge/source.js";
import { applyGate, makeTable, throughGate } from "../../src/merge/table.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import { clip } from "../../src/models/clip.js";
import { llama } from "../../src/models/llama.js";
import { t5 } from "../../src/models/t5.js";
import type { Config, ModelFamily, TokenRow } from "../../src/models/types.js";
import { memoryText, size } from "../../src/report/memory.js";
import { planMemory, shapeWithModel } from "../../src/inputs/placement.js";
import { shapeOfHeader } from "../../src/plan/shape.js";
import { dtypeBytes, elements, fromFloat32, type FloatDType } from "../../src/tensor/dtype.js";
import { adamDefaults, adamW, zeroMoments } from "../../src/train/adamw.js";
import { coefficientGradient } from "../../src/train/step.js";

const { values: o } = parseArgs({
  options: {
    header: { type: "string" },
    shape: { type: "string", default: "t0-3b" },
    folder: { type: "string" },
    make: { type: "boolean", default: false },
    k: { type: "string", default: "3" },
    steps: { type: "string", default: "2" },
    backend: { type: "string", default: "node" },
    out: { type: "string" },
    tokens: { type: "string", default: "1024" },
    budget: { type: "string", default: String(4 * 2 ** 30) },
  },
});
const k = Number(o.k);

/** A published model's shape, and how its files store it. */
interface Shape {
  readonly title: string;
  readonly family: ModelFamily;
  readonly dtype: FloatDType;
  readonly config: Config & { readonly vocab_size: number };
  /** Whether texts are said (`generate`), or two answers to each are ranked. */
  readonly kind: "generate" | "choose";
}

/** What Qwen3's sizes share. */
const qwen3 = {
  model_type: "qwen3",
  architectures: ["Qwen3ForCausalLM"],
  num_key_value_heads: 8,
  head_dim: 128,
  max_position_embeddings: 40960,
  rms_norm_eps: 1e-6,
  rope_theta: 1e6,
  vocab_size: 151936,
};

const publishedShapes: Readonly<Record<string, Shape>> = {
  // bigscience/T0_3B: T5 v1.1 XL, 2.85 billion parameters.
  "t0-3b": {
    title: "T0-3B",
    family: t5,
    dtype: "F32",
    kind: "choose",
    config: {
      model_type: "t5",
      architectures: ["T5ForConditionalGeneration"],
      d_model: 2048,
      d_kv: 64,
      d_ff: 5120,
      num_layers: 24,
      num_decoder_layers: 24,
      num_heads: 32,
      vocab_size: 32128,
      feed_forward_proj: "gated-gelu",
      tie_word_embeddings: false,
      relative_attention_num_buckets: 32,
    },
  },
  // Qwen/Qwen3-1.7B: 1.72 billion parameters, of which the embedding, which is the output layer too, is 0.31.
  "qwen3-1.7b": {
    title: "Qwen3-1.7B",
    family: llama,
    dtype: "BF16",
    kind: "generate",
    config: {
      ...qwen3,
      hidden_size: 2048,
      intermediate_size: 6144,
      num_hidden_layers: 28,
      num_attention_heads: 16,
      tie_word_embeddings: true,
    },
  },
  // openai/clip-vit-base-patch32: the vision tower, 87 million parameters, for plans.
  "clip-vit-b32": {
    title: "CLIP ViT-B/32's vision tower",
    family: clip,
    dtype: "F32",
    kind: "choose",
    config: {
      model_type: "clip_vision_model",
      architectures: ["CLIPVisionModelWithProjection"],
      hidden_size: 768,
      intermediate_size: 3072,
      num_attention_heads: 12,
      num_hidden_layers: 12,
      image_size: 224,
      patch_size: 32,
      projection_dim: 512,
      vocab_size: 49408,
    },
  },
  // Qwen/Qwen3-8B: 8.19 billion parameters, for plans.
  "qwen3-8b": {
    title: "Qwen3-8B",
    family: llama,
    dtype: "BF16",
    kind: "generate",
    config: {
      ...qwen3,
      hidden_size: 4096,
      intermediate_size: 12288,
      num_hidden_layers: 36,
      num_attention_heads: 32,
      tie_word_embeddings: false,
    },
  },
};
const found = publishedShapes[o.shape];
if (!found) throw new Error(`--shape must be one of ${Object.keys(publishedShapes).join(", ")}`);
const { title, family: models, dtype, config, kind } = found;
const home = o.folder ?? join("checkpoints", o.shape);
/** Enough that every product has a result, and every coefficient a gradient. */
const filledRows = 8;
const model = models.build(config);
const shapes = model.parameters;

interface HeaderEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [start: number, end: number];
}

function header(): Record<string, HeaderEntry> {
  let start = 0;
  const entries = [...shapes].map(([name, shape]) => {
    const end = start + dtypeBytes[dtype] * elements(shape);
    const offsets: [number, number] = [start, end];
    start = end;
    return [name, { dtype, shape: [...shape], data_offsets: offsets }] as const;
  });
  return Object.fromEntries(entries);
}

/** A safetensors file whose tensors are holes but for their first entries. */
async function writeSparse(folder: string, seed: number, scale: number): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  const entries = header();
  const json = Buffer.from(JSON.stringify({ __metadata__: { format: "pt" }, ...entries }));
  const start = 8 + Math.ceil(json.length / 8) * 8;
  const path = join(folder, "model.safetensors");
  const handle = await open(path, "w");
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(start - 8));
  await handle.write(length, 0, 8, 0);
  await handle.write(Buffer.concat([json, Buffer.alloc(start - 8 - json.length, " ")]), 0, start - 8, 8);
  for (const [
    name,
    {
      shape,
      data_offsets: [from],
    },
  ] of Object.entries(entries)) {
    const norm = name.includes("norm");
    const values = Float32Array.from(
      { length: Math.min(elements(shape), filledRows * at(shape, -1)) },
      (_, i) => (norm ? 1 : 0) + scale * Math.sin(1 + i * (seed + 1.3)),
    );
    const bytes = fromFloat32(values, dtype);
    await handle.write(bytes, 0, bytes.byteLength, start + from);
  }
  await handle.close();
  await truncate(path, start + Math.max(...Object.values(entries).map(({ data_offsets: [, to] }) => to)));
}

if (o.header !== undefined) {
  await mkdir(o.header, { recursive: true });
  await writeFile(join(o.header, "config.json"), `${JSON.stringify(config, undefined, 2)}\n`);
  await writeFile(
    join(o.header, "header.json"),
    `{\n${Object.entries(header())
      .map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`)
      .join(",\n")}\n}\n`,
  );
} else if (o.make) {
  for (let i = 0; i <= k; i++) await writeSparse(join(home, String(i)), i, i === 0 ? 0.02 : 0.021);
} else {
  const engine = await startEngine(z.enum(engineNames).parse(o.backend));
  const memory = watchMemory();
  const started = performance.now();
  const family = await openFamily(
    await openMember("base", join(home, "0"), (name) => name),
    Array.from({ length: k }, (_, i) => ({ task: `expert${i + 1}`, folder: join(home, String(i + 1)) })),
    (name) => name,
  );
  const entryOf = (name: string) => ({ name, shape: lookUp(shapes, name), bytes: dtypeBytes[dtype] });
  const tokens = Number(o.tokens);
  const described = shapeOfHeader([...shapes.keys()].map(entryOf), config, k);
  const plan = await planMemory(
    shapeWithModel(described, model),
    { tokens, microBatch: tokens, length: 64 },
    engine,
    {
      packing: "f32",
      density: 1,
      request: { residency: "auto", blocks: "auto" },
      memoryBudget: Number(o.budget),
    },
  );
  const planText = memoryText({
    ...plan,
    rows: plan.predictions,
    what: `${title}, ${k} experts, ${tokens} tokens a step, ${engine}`,
  });
  console.log(planText);
  const vectors = await loadTaskVectors(
    { base: family.base, columns: family.experts.map(columnOf) },
    [...shapes.keys()],
    {
      residency: plan.chosen.residency,
      tables: model.tables,
      onTensor: (done, of) =>
        void (
          done % 50 === 0 &&
          console.log(`read ${done} of ${of} tensors, ${((performance.now() - started) / 1000).toFixed(0)} s`)
        ),
    },
  );
  const scanSeconds = (performance.now() - started) / 1000;
  /** Texts of 56 tokens, each with four to be said; where answers are ranked, two of them to each. */
  const rowsOf = (count: number, task: number): TokenRow[] =>
    Array.from({ length: answers * count }, (_, r) => ({
      ids: Array.from(
        { length: 56 },
        (_, i) => (task * 977 + Math.floor(r / answers) * 131 + i * 17) % config.vocab_size,
      ),
      types: [],
      targets: Array.from({ length: 4 }, (_, i) => (task * 31 + r * 7 + i * 13) % config.vocab_size),
    }));
  const answers = kind === "choose" ? 2 : 1;
  const each = Math.max(1, Math.floor(tokens / 64 / k));
  const jobs = Array.from({ length: k }, (_, t) => {
    const labels = Array.from({ length: each }, (_, r) => r % answers);
    return { head: undefined, weight: 1, batch: rowsBatch(kind, rowsOf(each, t), labels) };
  });
  let raw = makeTable(vectors.layers.length, k, () => 0.1);
  let moments = zeroMoments(raw.values.length);
  const lines: string[] = [];
  for (let step = 1; step <= Number(o.steps); step++) {
    const [from, read] = [performance.now(), traffic.read];
    const { gradient, losses } = await coefficientGradient(
      { model, vectors, table: applyGate(raw, "tanh"), blockwise: plan.chosen.blockwise, microBatch: tokens },
      jobs,
      "cross-entropy",
    );
    ({ raw, moments } = adamW(raw, throughGate(gradient, raw, "tanh"), moments, {
      ...adamDefaults,
      lr: 0.03,
    }));
    const live = gradient.values.filter((g) => g !== 0).length;
    lines.push(
      `| ${step} | ${losses.reduce((a, b) => a + b, 0).toFixed(5)} | ${live} of ` +
        `${gradient.values.length} | ${size(memory.peak())} | ` +
        `${size(process.resourceUsage().maxRSS * 1024)} | ${size(traffic.read - read)} | ` +
        `${((performance.now() - from) / 1000).toFixed(0)} |`,
    );
    console.log(lines.at(-1));
  }
  if (o.out !== undefined) {
    await writeFile(
      join(o.out, "results.md"),
      [
        "```",
        planText,
        "```",
        "",
        `Measured: ${vectors.layers.length} tensors × ${k} experts, each file ` +
          `${size(dtypeBytes[dtype] * [...shapes.values()].reduce((sum, shape) => sum + elements(shape), 0))} of ` +
          `${dtype}; first reading of all files ${scanSeconds.toFixed(0)} s.`,
        "",
        "| step | loss | coefficients with a gradient | device peak | process peak | read | s |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ...lines,
        "",
      ].join("\n"),
    );
  }
}
process.exit(0);
