/**
 * Merges from disk to disk, train-merge beside mergekit and a plain copy of the same bytes:
 * interleaved, medians, peaks.
 *
 *   node dist/scripts/bench/disk.js --python .venv/bin/python [--cases minilm,1b] [--rounds 3]
 *   [--methods linear,ties] [--out experiments/disk]
 *
 * `minilm` needs checkpoints/minilm; `1b` makes its own family of random bfloat16 (9 GB) in checkpoints/bench-1b.
 */
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { copyFile, mkdir, open, rm, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { stringify } from "yaml";
import { z } from "zod";
import { openMember } from "../../src/checkpoint/family.js";
import { writeWeights, type TensorSource } from "../../src/checkpoint/write.js";
import { bert } from "../../src/models/bert.js";
import { packageFolder } from "../../src/package.js";
import { elements, fromFloat32 } from "../../src/tensor/dtype.js";
import { median } from "../../src/report/rows.js";
import { at, lookUp } from "../../src/at.js";
import { lastLine } from "./processes.js";

const { values: given } = parseArgs({
  options: {
    python: { type: "string", default: "python3" },
    cases: { type: "string", default: "minilm,1b" },
    methods: { type: "string", default: "linear,task_arithmetic,ties,dare_ties" },
    rounds: { type: "string", default: "3" },
    out: { type: "string" },
  },
});

/** MiniLM's encoders alone, under one architecture, as mergekit wants them; six of them (one expert stands twice). */
async function minilm(folder: string): Promise<string[]> {
  const from = join("checkpoints", "minilm");
  const models = ["base", "rte", "cb", "copa", "trec6", "sst2", "rte-again"];
  for (const model of models) {
    const source = model === "base" ? join(from, "base") : join(from, "experts", model.replace("-again", ""));
    const member = await openMember(model, source, bert.canonical);
    const names = bert.build(member.checkpoint.config).parameters;
    const tensors = [...names].map(([name, shape]): TensorSource => ({
      name,
      shape,
      dtype: "F32",
      bytes: async () => fromFloat32((await member.weights(name)).values, "F32"),
    }));
    await writeWeights(join(folder, model), tensors, 1e12);
    await writeFile(
      join(folder, model, "config.json"),
      JSON.stringify({ ...member.checkpoint.config, architectures: ["BertModel"] }),
    );
    await member.checkpoint.close();
  }
  return models.slice(1);
}

const llama = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_size: 2048,
  intermediate_size: 5632,
  num_hidden_layers: 22,
  num_attention_heads: 32,
  num_key_value_heads: 4,
  vocab_size: 32000,
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-5,
  hidden_act: "silu",
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
};

/** Names and shapes of the tensors of {@link llama}. */
function llamaShapes(): [string, number[]][] {
  const { hidden_size: hidden, intermediate_size: inner, vocab_size: vocabulary } = llama;
  const keys = 256;
  const modules: [string, number[]][] = [
    ["input_layernorm", [hidden]],
    ["mlp.down_proj", [hidden, inner]],
    ["mlp.gate_proj", [inner, hidden]],
    ["mlp.up_proj", [inner, hidden]],
    ["post_attention_layernorm", [hidden]],
    ["self_attn.k_proj", [keys, hidden]],
    ["self_attn.o_proj", [hidden, hidden]],
    ["self_attn.q_proj", [hidden, hidden]],
    ["self_attn.v_proj", [keys, hidden]],
  ];
  const layer = (l: number) =>
    modules.map(([name, shape]): [string, number[]] => [`model.layers.${l}.${name}.weight`, shape]);
  return [
    ["lm_head.weight", [vocabulary, hidden]],
    ["model.embed_tokens.weight", [vocabulary, hidden]],
    ...Array.from({ length: llama.num_hidden_layers }, (_, l) => layer(l)).flat(),
    ["model.norm.weight", [hidden]],
  ];
}

/** So many bfloat16 of a normal distribution, drawn by the numbers of the model and the tensor. */
function normalBytes(normal: Uint16Array, model: number, tensor: number, count: number): Uint8Array {
  const out = new Uint16Array(count);
  // The base's numbers, and in the others' their last bits.
  const changedBits = model === 0 ? 0 : 3;
  let x = (tensor + 1) * 2654435761;
  let y = (model + 7) * (tensor + 3) * 40503;
  for (let i = 0; i < count; i++) {
    x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    y = Math.imul(y ^ (y >>> 15), 0x297a2d39) + 0x9e3779b9;
    out[i] = normal[(x >>> 13) & 65535]! ^ ((y >>> 17) & changedBits);
  }
  return new Uint8Array(out.buffer);
}

/** A Llama of 1.1 billion bfloat16 (TinyLlama's shapes), and three others whose last bits differ. */
async function billion(folder: string): Promise<string[]> {
  const quantiles = Float32Array.from(
    { length: 65536 },
    (_, i) => 0.02 * Math.sqrt(-2 * Math.log((i + 0.5) / 65536)) * Math.cos(2.399963 * i),
  );
  const normal = new Uint16Array(fromFloat32(quantiles, "BF16").buffer);
  const models = ["base", "a", "b", "c"];
  for (const [m, model] of models.entries()) {
    if (existsSync(join(folder, model, "config.json"))) continue;
    const tensors = llamaShapes().map(([name, shape], t): TensorSource => ({
      name,
      shape,
      dtype: "BF16",
      bytes: async () => normalBytes(normal, m, t, elements(shape)),
    }));
    await writeWeights(join(folder, model), tensors, 1e12);
    await writeFile(join(folder, model, "config.json"), JSON.stringify(llama));
  }
  return models.slice(1);
}

const cases: Record<string, { make: (folder: string) => Promise<string[]>; dtype: string; what: string }> = {
  minilm: { make: minilm, dtype: "float32", what: "all-MiniLM-L6-v2, 6 experts, float32" },
  "1b": { make: billion, dtype: "bfloat16", what: "1.1 billion parameters (Llama), 3 experts, bfloat16" },
};

/** `seconds`: of the merge alone, by its own count; `command`: from start to end. */
interface Run {
  readonly seconds: number;
  readonly command: number;
  readonly memory: number;
}

/**
 * Runs a command; memory: its peak without pages of files, looked at every 20 ms. @param own its own
 * count of the seconds
 */
async function run(
  program: string,
  args: readonly string[],
  cwd: string,
  own: (stdout: string) => number,
): Promise<Run> {
  const started = performance.now();
  const child = spawn(program, args, {
    cwd,
    env: { ...process.env, OMP_WAIT_POLICY: "passive", GOMP_SPINCOUNT: "0" },
  });
  let [stdout, stderr, memory] = ["", "", 0];
  child.stdout.on("data", (data: Buffer) => (stdout += data.toString()));
  child.stderr.on("data", (data: Buffer) => (stderr += data.toString()));
  const watch = setInterval(() => {
    try {
      const anonymous = /RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"));
      memory = Math.max(memory, Number(anonymous?.[1] ?? 0) * 1024);
    } catch {
      // It has ended.
    }
  }, 20);
  const code = await new Promise<number | null>((done) => child.on("close", done));
  clearInterval(watch);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr.slice(-2000)}`);
  const command = (performance.now() - started) / 1000;
  return { seconds: own(stdout), command, memory };
}

async function copyAll(from: readonly string[], to: string): Promise<number> {
  const started = performance.now();
  await mkdir(to, { recursive: true });
  for (const [i, folder] of from.entries())
    await copyFile(join(folder, "model.safetensors"), join(to, `${i}.safetensors`));
  for (const i of from.keys()) {
    const handle = await open(join(to, `${i}.safetensors`), "r+");
    await handle.sync();
    await handle.close();
  }
  return (performance.now() - started) / 1000;
}

const secondsIn = (json: string): number => z.object({ seconds: z.number() }).parse(JSON.parse(json)).seconds;

const lines = [
  `${cpus().length} cores (${at(cpus(), 0).model.trim()}), Node ${process.version}. Seconds, ` +
    `medians of ${given.rounds} rounds in turns; memory is the process's peak without pages ` +
    "of files.",
  "",
  "train-merge and mergekit 0.1.5: the merge alone, by their own count (train-merge's from " +
    "options to files synced to the disk; mergekit's without its imports, files not synced), " +
    "and its ratio; the whole command, start and imports in it. Copy: every byte of the " +
    "inputs, synced.",
  "",
];
for (const name of given.cases.split(",")) {
  const { make, dtype, what } = lookUp(new Map(Object.entries(cases)), name);
  const folder = resolve("checkpoints", `bench-${name}`);
  const models = await make(folder);
  lines.push(
    `## ${what}`,
    "",
    "| method | train-merge | mergekit | ratio | train-merge, command | mergekit, command | " +
      "train-merge, memory | mergekit, memory | copy of the inputs |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
  );
  for (const method of given.methods.split(",")) {
    const config = join(folder, `${method}.yml`);
    const density = method.includes("ties") ? { density: method === "ties" ? 0.2 : 0.5 } : {};
    await writeFile(
      config,
      stringify({
        merge_method: method,
        ...(method !== "linear" && { base_model: "base" }),
        models: models.map((model) => ({ model, parameters: { weight: 0.3, ...density } })),
        dtype,
      }),
    );
    const runs: Record<"ours" | "theirs" | "copy", Run[]> = { ours: [], theirs: [], copy: [] };
    for (let round = 0; round < Number(given.rounds); round++) {
      for (const who of ["ours", "theirs", "copy"] as const) {
        const out = join(folder, "out");
        await rm(out, { recursive: true, force: true });
        if (who === "ours")
          runs.ours.push(
            await run(
              process.execPath,
              [join(packageFolder, "dist", "src", "cli", "main.js"), "merge", config, "--out", out, "--json"],
              folder,
              secondsIn,
            ),
          );
        else if (who === "theirs")
          runs.theirs.push(
            await run(
              resolve(given.python),
              [join(packageFolder, "scripts", "bench", "mergekit_worker.py"), config, out],
              folder,
              (stdout) => secondsIn(lastLine(stdout)),
            ),
          );
        else {
          const seconds = await copyAll(
            [
              ...(method === "linear" ? [] : [join(folder, "base")]),
              ...models.map((model) => join(folder, model)),
            ],
            out,
          );
          runs.copy.push({ seconds, command: seconds, memory: 0 });
        }
        await rm(out, { recursive: true, force: true });
        console.log(name, method, round, who, runs[who].at(-1));
      }
    }
    const seconds = (who: keyof typeof runs, what: "seconds" | "command" = "seconds") =>
      median(runs[who].map((one) => one[what]));
    const memory = (who: keyof typeof runs) =>
      `${(Math.max(...runs[who].map((one) => one.memory)) / 1e6).toFixed(0)} MB`;
    lines.push(
      `| ${method} | ${seconds("ours").toFixed(2)} | ${seconds("theirs").toFixed(2)} | ` +
        `${(seconds("theirs") / seconds("ours")).toFixed(2)} × | ` +
        `${seconds("ours", "command").toFixed(2)} | ${seconds("theirs", "command").toFixed(2)} | ` +
        `${memory("ours")} | ${memory("theirs")} | ${seconds("copy").toFixed(2)} |`,
    );
  }
  lines.push("");
}
console.log(lines.join("\n"));
if (given.out !== undefined) {
  await mkdir(given.out, { recursive: true });
  await writeFile(join(given.out, `${given.cases.replaceAll(",", "-")}.md`), `${lines.join("\n")}\n`);
}
