/**
 * A family of T0-3B's shape (T5 v1.1 XL: 2.85 billion parameters, 24 + 24 blocks of width 2048) with k dense float32
 * experts, merged from disk a block at a time: how much device memory a training step takes.
 *
 *   node dist/scripts/bench/t0-3b.js --header experiments/t0-3b
 *   node dist/scripts/bench/t0-3b.js --folder checkpoints/t0-3b --make --k 11
 *   node dist/scripts/bench/t0-3b.js --folder checkpoints/t0-3b --k 11 --steps 2 --backend node --out experiments/t0-3b
 *
 * --header writes config.json and header.json; --make writes sparse files, whose holes read as zeros.
 * Each tensor has its first rows filled, differently in every model, so that every expert changes every
 * tensor; the rest are zeros, which cost as much to read, subtract, merge and multiply as any other
 * numbers. A step scores two answers to every text, as rank classification does.
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
import { t5 } from "../../src/models/t5.js";
import { memoryText, size } from "../../src/report/memory.js";
import { planMemory } from "../../src/inputs/placement.js";
import { shapeOfHeader } from "../../src/plan/shape.js";
import { elements } from "../../src/tensor/dtype.js";
import { adamDefaults, adamW, zeroMoments } from "../../src/train/adamw.js";
import { coefficientGradient } from "../../src/train/step.js";

const { values: o } = parseArgs({
  options: {
    header: { type: "string" },
    folder: { type: "string", default: "checkpoints/t0-3b" },
    make: { type: "boolean", default: false },
    k: { type: "string", default: "11" },
    steps: { type: "string", default: "2" },
    backend: { type: "string", default: "node" },
    out: { type: "string" },
    tokens: { type: "string", default: "1024" },
    budget: { type: "string", default: String(4 * 2 ** 30) },
  },
});
const k = Number(o.k);
/** bigscience/T0_3B's own numbers. */
const config = {
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
};
/** Enough that every product has a result, and every coefficient a gradient. */
const filledRows = 8;
const model = t5.build(config);
/** The real file has one of its own for every block that has relative positions: the first of either side. */
const shapes = model.parameters;

interface HeaderEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [start: number, end: number];
}

function header(): Record<string, HeaderEntry> {
  let start = 0;
  const entries = [...shapes].map(([name, shape]) => {
    const end = start + 4 * elements(shape);
    const offsets: [number, number] = [start, end];
    start = end;
    return [name, { dtype: "F32", shape: [...shape], data_offsets: offsets }] as const;
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
    const norm = name.endsWith("layer_norm.weight");
    const values = Float32Array.from(
      { length: Math.min(elements(shape), filledRows * at(shape, -1)) },
      (_, i) => (norm ? 1 : 0) + scale * Math.sin(1 + i * (seed + 1.3)),
    );
    await handle.write(Buffer.from(values.buffer), 0, values.byteLength, start + from);
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
  for (let i = 0; i <= k; i++) await writeSparse(join(o.folder, String(i)), i, i === 0 ? 0.02 : 0.021);
} else {
  const engine = await startEngine(z.enum(engineNames).parse(o.backend));
  const memory = watchMemory();
  const started = performance.now();
  const family = await openFamily(
    await openMember("base", join(o.folder, "0"), (name) => name),
    Array.from({ length: k }, (_, i) => ({ task: `expert${i + 1}`, folder: join(o.folder, String(i + 1)) })),
    (name) => name,
  );
  const entryOf = (name: string) => ({ name, shape: lookUp(shapes, name), bytes: 4 });
  const tokens = Number(o.tokens);
  const plan = await planMemory(
    shapeOfHeader([...shapes.keys()].map(entryOf), config, k),
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
    what: `T0-3B, ${k} experts, ${tokens} tokens a step, ${engine}`,
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
  // Two answers of four tokens to every text.
  const rowsOf = (count: number, task: number) =>
    Array.from({ length: 2 * count }, (_, r) => ({
      ids: Array.from({ length: 56 }, (_, i) => (task * 977 + (r >> 1) * 131 + i * 17) % config.vocab_size),
      types: [],
      targets: Array.from({ length: 4 }, (_, i) => (task * 31 + r * 7 + i * 13) % config.vocab_size),
    }));
  const each = Math.max(1, Math.floor(tokens / 64 / k));
  const jobs = Array.from({ length: k }, (_, t) => ({
    head: undefined,
    weight: 1,
    batch: rowsBatch(
      "choose",
      rowsOf(each, t),
      Array.from({ length: each }, (_, r) => r % 2),
    ),
  }));
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
          `${size(4 * [...shapes.values()].reduce((sum, shape) => sum + elements(shape), 0))} of ` +
          `float32; first reading of all files ${scanSeconds.toFixed(0)} s.`,
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
