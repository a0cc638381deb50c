/**
 * A family of T0-3B's shape (T5 v1.1 XL: 2.85 billion parameters, 24 + 24 blocks of width 2048) with k dense float32
 * experts, merged from disk a block at a time: how much device memory a training step takes.
 *
 *   node dist/scripts/bench/t0-3b.js --header experiments/t0-3b             writes config.json and header.json
 *   node dist/scripts/bench/t0-3b.js --folder checkpoints/t0-3b --make --k 11   writes sparse files: holes read as zeros
 *   node dist/scripts/bench/t0-3b.js --folder checkpoints/t0-3b --k 11 --steps 2 --backend node --out experiments/t0-3b
 *
 * Each tensor has its first rows filled, differently in every model, so that every expert changes every tensor; the rest
 * are zeros, which cost as much to read, subtract, merge and multiply as any other numbers. The arithmetic is that
 * of T5's blocks in size and kind (attention without biases, gated feed-forward); the decoder attends twice to its own
 * input and norms are LayerNorm, which changes no size. There are no words: activations start from a formula.
 */
import { mkdir, open, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { mul, tensor1d, tensor2d, zeros, type Tensor, type Tensor1D, type Tensor2D } from "@tensorflow/tfjs-core";
import { startEngine, watchMemory, type EngineName } from "../../src/backend/index.js";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { traffic } from "../../src/checkpoint/safetensors.js";
import { columnOf } from "../../src/merge/source.js";
import { applyGate, makeTable, throughGate } from "../../src/merge/table.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import { attention, attentionBias, type SegmentBias } from "../../src/models/attention.js";
import { gelu, layerNorm, linear, plus, rows } from "../../src/models/ops.js";
import type { Block, Model, TokenBatch, Weights } from "../../src/models/types.js";
import { memoryText, size } from "../../src/report/memory.js";
import { planMemory } from "../../src/run/place.js";
import { shapeOfHeader } from "../../src/plan/shape.js";
import { elements } from "../../src/tensor/dtype.js";
import { adamDefaults, adamW, zeroMoments } from "../../src/train/adamw.js";
import { coefficientGradient } from "../../src/train/step.js";

const { values: o } = parseArgs({ options: {
  header: { type: "string" }, folder: { type: "string", default: "checkpoints/t0-3b" }, make: { type: "boolean", default: false }, k: { type: "string", default: "11" },
  steps: { type: "string", default: "2" }, backend: { type: "string", default: "node" }, out: { type: "string" }, tokens: { type: "string", default: "1024" }, budget: { type: "string", default: String(4 * 2 ** 30) },
} });
const k = Number(o.k);
/** bigscience/T0_3B's own numbers. */
const config = { model_type: "t5", architectures: ["T5ForConditionalGeneration"], d_model: 2048, d_kv: 64, d_ff: 5120, num_layers: 24, num_decoder_layers: 24, num_heads: 32, vocab_size: 32128, feed_forward_proj: "gated-gelu", tie_word_embeddings: false, relative_attention_num_buckets: 32 };
/** Enough that every product has a result, and every coefficient a gradient. */
const filledRows = 8;
const { d_model: width, d_ff: inner, num_heads: heads, vocab_size: vocabulary } = config;

const attentionShapes = (at: string): [string, number[]][] => ["q", "k", "v", "o"].map((name) => [`${at}.${name}.weight`, [width, width]]);
const feedForward = (at: string): [string, number[]][] => [[`${at}.DenseReluDense.wi_0.weight`, [inner, width]], [`${at}.DenseReluDense.wi_1.weight`, [inner, width]], [`${at}.DenseReluDense.wo.weight`, [width, inner]]];
const block = (side: string, i: number): [string, number[]][] => {
  const at = `${side}.block.${i}.layer`;
  const decoder = side === "decoder";
  return [
    ...attentionShapes(`${at}.0.SelfAttention`), ...(i === 0 ? [[`${at}.0.SelfAttention.relative_attention_bias.weight`, [32, heads]] as [string, number[]]] : []), [`${at}.0.layer_norm.weight`, [width]],
    ...(decoder ? [...attentionShapes(`${at}.1.EncDecAttention`), [`${at}.1.layer_norm.weight`, [width]] as [string, number[]]] : []),
    ...feedForward(`${at}.${decoder ? 2 : 1}`), [`${at}.${decoder ? 2 : 1}.layer_norm.weight`, [width]],
  ];
};
const shapes = new Map<string, number[]>([
  ["shared.weight", [vocabulary, width]],
  ...["encoder", "decoder"].flatMap((side) => [...Array.from({ length: 24 }, (_, i) => block(side, i)).flat(), [`${side}.final_layer_norm.weight`, [width]] as [string, number[]]]),
  ["lm_head.weight", [vocabulary, width]],
]);

function header(): Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> {
  let at = 0;
  return Object.fromEntries([...shapes].map(([name, shape]) => [name, { dtype: "F32", shape, data_offsets: [at, (at += 4 * elements(shape))] as [number, number] }]));
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
  for (const [name, { shape, data_offsets: [from] }] of Object.entries(entries)) {
    const norm = name.endsWith("layer_norm.weight");
    const values = Float32Array.from({ length: Math.min(elements(shape), filledRows * shape.at(-1)!) }, (_, i) => (norm ? 1 : 0) + scale * Math.sin(1 + i * (seed + 1.3)));
    await handle.write(Buffer.from(values.buffer), 0, values.byteLength, start + from);
  }
  await handle.close();
  await truncate(path, start + Math.max(...Object.values(entries).map(({ data_offsets: [, to] }) => to)));
}

interface State { readonly batch: TokenBatch; readonly x: Tensor; readonly bias: readonly SegmentBias[] }

const zero = (n: number) => zeros([n]) as Tensor1D;
const dense = (w: Weights, x: Tensor2D, names: readonly string[]) => linear(x, names.map((name) => {
  const weight = w(name) as Tensor2D;
  return { weight, bias: zero(weight.shape[0]) };
}));

/** Attention, twice in a decoder, and a gated feed-forward layer, each on the normed input and added to it. */
function blockOf(side: string, i: number): Block<State> {
  const names = block(side, i).map(([name]) => name);
  const at = `${side}.block.${i}.layer`;
  const ff = side === "decoder" ? 2 : 1;
  return {
    id: `${side}.block.${i}`, names,
    run(w, state) {
      const normed = (x: Tensor2D, layer: number) => layerNorm(x, w(`${at}.${layer}.layer_norm.weight`) as Tensor1D, zero(width), 1e-6);
      let x = state.x as Tensor2D;
      for (const [layer, kind] of side === "decoder" ? ["SelfAttention", "EncDecAttention"].entries() : [[0, "SelfAttention"] as const]) {
        const projected = dense(w, normed(x, layer), ["q", "k", "v"].map((name) => `${at}.${layer}.${kind}.${name}.weight`));
        x = plus(dense(w, attention(projected, state.bias, heads), [`${at}.${layer}.${kind}.o.weight`]), x);
      }
      const input = normed(x, ff);
      const gated = mul(gelu(dense(w, input, [`${at}.${ff}.DenseReluDense.wi_0.weight`])), dense(w, input, [`${at}.${ff}.DenseReluDense.wi_1.weight`])) as Tensor2D;
      return { ...state, x: plus(dense(w, gated, [`${at}.${ff}.DenseReluDense.wo.weight`]), x) };
    },
  };
}

/** Words by their row, at the start. */
const embed: Block<State> = {
  id: "shared", names: ["shared.weight"],
  run: (w, state) => ({ ...state, x: plus(w.rows!("shared.weight", state.batch.ids), tensor2d(Float32Array.from({ length: state.batch.ids.length * width }, (_, i) => Math.sin(i)), [state.batch.ids.length, width])) }),
};
const finalNorm = (side: string): Block<State> => ({
  id: side, names: [`${side}.final_layer_norm.weight`],
  run: (w, state) => ({ ...state, x: layerNorm(state.x as Tensor2D, w(`${side}.final_layer_norm.weight`) as Tensor1D, zero(width), 1e-6) }),
});
/** Scores of all words for the first token of every row. */
const languageHead: Block<State> = {
  id: "lm_head", names: ["lm_head.weight"],
  run: (w, state) => ({ ...state, x: dense(w, rows(state.x as Tensor2D, tensor1d(state.batch.first, "int32")), ["lm_head.weight"]) }),
};

const model: Model<State> = {
  parameters: shapes, tables: new Set(["shared.weight"]), width, heads, vocabulary, maxLength: 512, padId: 0,
  blocks: [embed, ...Array.from({ length: 24 }, (_, i) => blockOf("encoder", i)), finalNorm("encoder"), ...Array.from({ length: 24 }, (_, i) => blockOf("decoder", i)), finalNorm("decoder"), languageHead],
  lookups: ({ ids }) => [{ name: "shared.weight", ids }],
  start: (batch) => ({ batch, x: zeros([1]), bias: batch.segments.map(attentionBias) }),
  carried: ({ x }) => [x],
  carry: (start, [x]) => ({ ...start, x: x! }),
  features: ({ x }) => x as Tensor2D,
};

if (o.header !== undefined) {
  await mkdir(o.header, { recursive: true });
  await writeFile(join(o.header, "config.json"), `${JSON.stringify(config, undefined, 2)}\n`);
  await writeFile(join(o.header, "header.json"), `{\n${Object.entries(header()).map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`).join(",\n")}\n}\n`);
} else if (o.make) {
  for (let i = 0; i <= k; i++) await writeSparse(join(o.folder, String(i)), i, i === 0 ? 0.02 : 0.021);
} else {
  const engine = await startEngine(o.backend as EngineName);
  const memory = watchMemory();
  const started = performance.now();
  const family = await openFamily(await openMember("base", join(o.folder, "0"), (name) => name), Array.from({ length: k }, (_, i) => ({ task: `expert${i + 1}`, folder: join(o.folder, String(i + 1)) })), (name) => name);
  const entryOf = (name: string) => ({ name, shape: shapes.get(name)!, bytes: 4 });
  const tokens = Number(o.tokens);
  const plan = await planMemory(shapeOfHeader([...shapes.keys()].map(entryOf), config, k), { tokens, microBatch: tokens, length: 64 }, engine, { packing: "f32", density: 1, wish: { residency: "auto", blocks: "auto" }, memoryBudget: Number(o.budget) });
  const planText = memoryText({ ...plan, rows: plan.predictions, what: `T0-3B, ${k} experts, ${tokens} tokens a step, ${engine}` });
  console.log(planText);
  const vectors = await loadTaskVectors({ base: family.base, columns: family.experts.map(columnOf) }, [...shapes.keys()], {
    residency: plan.chosen.residency, tables: model.tables,
    onTensor: (done, of) => void (done % 50 === 0 && console.log(`read ${done} of ${of} tensors, ${((performance.now() - started) / 1000).toFixed(0)} s`)),
  });
  const scanSeconds = (performance.now() - started) / 1000;
  const head = { weight: tensor2d(Float32Array.from({ length: 2 * vocabulary }, (_, i) => 0.01 * Math.sin(i)), [2, vocabulary]), bias: zero(2) };
  const rowsOf = (count: number, task: number) => Array.from({ length: count }, (_, r) => ({ ids: Array.from({ length: 64 }, (_, i) => (task * 977 + r * 131 + i * 17) % vocabulary), types: Array.from({ length: 64 }, () => 0) }));
  const each = Math.max(1, Math.floor(tokens / 64 / k));
  const jobs = Array.from({ length: k }, (_, t) => ({ head, weight: 1, batch: { rows: rowsOf(each, t), labels: Array.from({ length: each }, (_, r) => r % 2), choices: undefined } }));
  let raw = makeTable(vectors.layers.length, k, () => 0.1);
  let moments = zeroMoments(raw.values.length);
  const lines: string[] = [];
  for (let step = 1; step <= Number(o.steps); step++) {
    const [from, read] = [performance.now(), traffic.read];
    const { gradient, losses } = await coefficientGradient(model, vectors, applyGate(raw, "tanh"), jobs, { loss: "cross-entropy", blockwise: plan.chosen.blockwise, microBatch: tokens });
    ({ raw, moments } = adamW(raw, throughGate(gradient, raw, "tanh"), moments, 0.03, adamDefaults));
    const live = gradient.values.filter((g) => g !== 0).length;
    lines.push(`| ${step} | ${losses.reduce((a, b) => a + b, 0).toFixed(5)} | ${live} of ${gradient.values.length} | ${size(memory.peak())} | ${size(process.resourceUsage().maxRSS * 1024)} | ${size(traffic.read - read)} | ${((performance.now() - from) / 1000).toFixed(0)} |`);
    console.log(lines.at(-1));
  }
  if (o.out !== undefined) {
    await writeFile(join(o.out, "results.md"), [
      "```", planText, "```", "", `Measured: ${vectors.layers.length} tensors × ${k} experts, each file ${size(4 * [...shapes.values()].reduce((sum, shape) => sum + elements(shape), 0))} of float32; first reading of all files ${scanSeconds.toFixed(0)} s.`, "",
      "| step | loss | coefficients with a gradient | device peak | process peak | read | s |", "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |", ...lines, "",
    ].join("\n"));
  }
}
process.exit(0);
