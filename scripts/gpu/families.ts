/**
 * Random families, made on the spot from seeds: no weights travel with the bundle. The same numbers on every machine.
 *
 *   node dist/scripts/gpu/families.js KIND FOLDER INDEX    writes one model: 0 is the base, 1 … k the experts
 */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeSafetensors, type TensorSource } from "../../src/checkpoint/write.js";
import { familyOf } from "../../src/models/index.js";
import type { Config } from "../../src/models/types.js";
import { packageFolder } from "../../src/package.js";
import { elements, fromFloat32 } from "../../src/tensor/dtype.js";

export interface Kind {
  readonly what: string;
  readonly config: Config;
  readonly tasks: readonly string[];
}

const encoder = (layers: number, hidden: number, vocabulary: number): Config => ({
  model_type: "bert",
  architectures: ["BertForSequenceClassification"],
  hidden_size: hidden,
  num_hidden_layers: layers,
  num_attention_heads: hidden / 64,
  intermediate_size: 4 * hidden,
  vocab_size: vocabulary,
  max_position_embeddings: 512,
  type_vocab_size: 2,
  layer_norm_eps: 1e-12,
  pad_token_id: 0,
  hidden_act: "gelu",
  id2label: { 0: "entailment", 1: "not_entailment" },
  label2id: { entailment: 0, not_entailment: 1 },
});

const decoder = (
  layers: number,
  hidden: number,
  inner: number,
  heads: number,
  vocabulary: number,
): Config => ({
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  hidden_size: hidden,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  num_key_value_heads: heads / 2,
  head_dim: 128,
  intermediate_size: inner,
  vocab_size: vocabulary,
  max_position_embeddings: 2048,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  hidden_act: "silu",
  tie_word_embeddings: true,
  eos_token_id: 2,
});

const numbered = (count: number): string[] => Array.from({ length: count }, (_, i) => `task${i}`);

export const kinds: Readonly<Record<string, Kind>> = {
  encoder: { what: "encoder 12 × 768, 110 M", config: encoder(12, 768, 30522), tasks: numbered(8) },
  decoder: {
    what: "decoder 28 × 1024, 0.6 B",
    config: decoder(28, 1024, 3072, 16, 151936),
    tasks: ["rte", "cb", "copa"],
  },
  wide: {
    what: "decoder 1 × 2048 with 151,936 tokens",
    config: decoder(1, 2048, 256, 16, 151936),
    tasks: ["rte", "cb"],
  },
  "wide-small": {
    what: "decoder 1 × 512 with 151,936 tokens",
    config: decoder(1, 512, 256, 4, 151936),
    tasks: ["rte", "cb"],
  },
  // Matrices of the sizes of models of today, one layer each.
  "size-llama": {
    what: "decoder 1 × 2048, 16 heads, inner 5632",
    config: decoder(1, 2048, 5632, 16, 1000),
    tasks: ["rte", "cb"],
  },
  "size-qwen3": {
    what: "Qwen3 1 × 1024, 16 heads, inner 3072",
    config: { ...decoder(1, 1024, 3072, 16, 1000), model_type: "qwen3" },
    tasks: ["rte", "cb"],
  },
  "size-gemma2": {
    what: "Gemma 2 1 × 2304, 8 heads of 256, inner 4096",
    config: {
      ...decoder(1, 2304, 4096, 8, 1000),
      model_type: "gemma2",
      head_dim: 256,
      hidden_activation: "gelu_pytorch_tanh",
      query_pre_attn_scalar: 256,
      sliding_window: 64,
    },
    tasks: ["rte", "cb"],
  },
  "encoder-small": { what: "encoder 2 × 128", config: encoder(2, 128, 4000), tasks: numbered(4) },
  "decoder-small": {
    what: "decoder 2 × 128",
    config: decoder(2, 128, 256, 2, 4000),
    tasks: ["rte", "cb", "copa"],
  },
};

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

function valuesOf(name: string, size: number, index: number, expert: number): Float32Array {
  const isNorm = /norm.*weight$/i.test(name);
  const values = noise(size, index, isNorm ? 0.01 : 0.03);
  if (isNorm) values.forEach((x, i) => (values[i] = 1 + x));
  if (expert > 0) noise(size, 1000 * expert + index, 0.003).forEach((x, i) => (values[i]! += x));
  return values;
}

/** Writes the base (0) or an expert of a family, in bfloat16. */
async function writeModel({ config }: Kind, folder: string, expert: number): Promise<void> {
  const isEncoder = config["model_type"] === "bert";
  const model = familyOf(config, folder).build(config);
  const prefix = isEncoder ? "bert." : "model.";
  const head: [string, number[]][] =
    isEncoder && expert > 0
      ? [
          ["classifier.weight", [2, config["hidden_size"] as number]],
          ["classifier.bias", [2]],
        ]
      : [];
  const tensors = [
    ...[...model.parameters].map(([name, shape]) => [`${prefix}${name}`, [...shape]] as const),
    ...head,
  ];
  const sources = tensors.map(([name, shape], index): TensorSource => ({
    name,
    shape,
    dtype: "BF16",
    bytes: async () => fromFloat32(valuesOf(name, elements(shape), index, expert), "BF16"),
  }));
  await mkdir(folder, { recursive: true });
  await writeSafetensors(join(folder, "model.safetensors"), sources);
  await writeFile(join(folder, "config.json"), JSON.stringify(config));
  await cp(
    join(packageFolder, "checkpoints", "mini", "base", "tokenizer.json"),
    join(folder, "tokenizer.json"),
  );
}

/** A few examples for each task, out of the synthetic data that ships. */
async function writeData({ tasks }: Kind, folder: string): Promise<void> {
  const shipped = join(packageFolder, "data", "mini");
  const known = JSON.parse(await readFile(join(shipped, "tasks.json"), "utf8")) as Record<string, object>;
  for (const task of tasks) {
    await mkdir(join(folder, task), { recursive: true });
    for (const [split, count] of [
      ["validation", 32],
      ["test", 4],
    ] as const) {
      const lines = (
        await readFile(join(shipped, task in known ? task : "rte", `${split}.jsonl`), "utf8")
      ).split("\n");
      await writeFile(join(folder, task, `${split}.jsonl`), `${lines.slice(0, count).join("\n")}\n`);
    }
  }
  await writeFile(
    join(folder, "tasks.json"),
    JSON.stringify(Object.fromEntries(tasks.map((task) => [task, known[task] ?? known["rte"]]))),
  );
}

const run = (args: string[]): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), ...args], { stdio: "inherit" });
    child
      .on("error", reject)
      .on("close", (code) =>
        code === 0 ? resolve() : reject(new Error(`families.js ${args.join(" ")} ended with code ${code}`)),
      );
  });

/**
 * Makes a family with its data in `folder`, a process a model, unless it is there. @returns its base,
 * experts and data
 */
export async function makeFamily(
  name: string,
  folder: string,
): Promise<{ base: string; experts: string[]; data: string }> {
  const kind = kinds[name]!;
  const done = join(folder, "made");
  if (!existsSync(done)) {
    await writeData(kind, join(folder, "data"));
    const waiting = Array.from({ length: kind.tasks.length + 1 }, (_, i) => i);
    const worker = async (): Promise<void> => {
      for (let i = waiting.shift(); i !== undefined; i = waiting.shift())
        await run([name, join(folder, String(i)), String(i)]);
    };
    await Promise.all(Array.from({ length: Math.min(availableParallelism(), 8) }, worker));
    await writeFile(`${done}.part`, "");
    await rename(`${done}.part`, done);
  }
  return {
    base: join(folder, "0"),
    experts: kind.tasks.map((task, i) => `${task}=${join(folder, String(i + 1))}`),
    data: join(folder, "data"),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [name, folder, index] = process.argv.slice(2) as [string, string, string];
  await writeModel(kinds[name]!, folder, Number(index));
}
