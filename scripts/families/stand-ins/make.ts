/**
 * Small families of random numbers in exactly the form in which the papers' models and data are published: file
 * names, formats, tokenizers, numbers of layers, columns. The configs in experiments/ run on them unchanged but for
 * the paths.
 *
 *   node dist/scripts/families/stand-ins/make.js OUT [--settings t0,clip,glue] [--layers 24]
 *
 * Each setting is a folder with base, experts and data (t0 also with promptsource), for the options of those names
 * (all.sh runs every experiment on them):
 * train-merge reproduce supermerge/table-1 --config experiments/supermerge-table-1/config.yaml --base OUT/t0/base …
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { PNG } from "pngjs";
import { writeText } from "../../../src/checkpoint/files.js";
import { writeSafetensors } from "../../../src/checkpoint/write.js";
import { bert } from "../../../src/models/bert.js";
import { clip, clipText } from "../../../src/models/clip.js";
import { t5 } from "../../../src/models/t5.js";
import { loadTasks } from "../../../src/tasks/registry.js";
import { wordTokenizer } from "../../mini/tokenizer.js";
import { promptsource, publishedRows, words } from "./data.js";
import { safetensorsModel, sentencePiece, tensors, torchFile, writeBytes } from "./models.js";

const { values: o, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    settings: { type: "string", default: "t0,clip,glue" },
    /** Layers of every tower; those of the published models without. */
    layers: { type: "string" },
    /** Rows a split. */
    rows: { type: "string", default: "48" },
  },
});
const [out] = positionals;
if (out === undefined) throw new Error("name the folder to write to");
const layersOf = (published: number): number => (o.layers === undefined ? published : Number(o.layers));
const registry = await loadTasks();

async function writeRows(folder: string, task: string, splits: readonly string[]): Promise<void> {
  for (const split of splits) {
    const lines = publishedRows(task, split, Number(o.rows)).map((row) => `${JSON.stringify(row)}\n`);
    await writeText(join(folder, task, `${split}.jsonl`), lines.join(""));
  }
}

/** SuperMerge's eleven, and those that it holds out. */
const merged = "rte,cb,winogrande,wic,wsc,copa,hellaswag,story_cloze,anli_r1,anli_r2,anli_r3".split(",");
const heldOut = "cosmos_qa,social_iqa,paws,quail,wiki_qa,quartz,qasc,ropes".split(",");
const withTest = new Set(["anli_r1", "anli_r2", "anli_r3", "paws", "quail", "wiki_qa", "quartz"]);

/** (IA)³ of T-Few and TIES: keys, values, and what goes into the second layer of a feed-forward. */
function ia3Shapes(shapes: ReadonlyMap<string, readonly number[]>): [string, number[]][] {
  return [...shapes].flatMap(([name, [rows = 0, columns = 0]]): [string, number[]][] => {
    const module = name.replace(/\.weight$/, "");
    const vector = `base_model.model.${module}.ia3_l`;
    if (/Attention\.[kv]$/.test(module)) return [[vector, [rows, 1]]];
    return module.endsWith("DenseReluDense.wo") ? [[vector, [1, columns]]] : [];
  });
}

/** T0-3B: pickled weights, spiece.model alone, (IA)³ by PEFT, P3's folders. */
async function makeT0(root: string): Promise<void> {
  const base = join(root, "base");
  await mkdir(base, { recursive: true });
  const pieces = await sentencePiece(join(base, "spiece.model"), words);
  const config = {
    architectures: ["T5ForConditionalGeneration"],
    model_type: "t5",
    d_model: 16,
    d_kv: 8,
    d_ff: 24,
    num_heads: 2,
    num_layers: layersOf(24),
    num_decoder_layers: layersOf(24),
    feed_forward_proj: "gated-gelu",
    tie_word_embeddings: false,
    relative_attention_num_buckets: 32,
    layer_norm_epsilon: 1e-6,
    // As T5's: more rows than tokens.
    vocab_size: 64 * Math.ceil((pieces + 100) / 64),
    decoder_start_token_id: 0,
    eos_token_id: 1,
    pad_token_id: 0,
  };
  await writeText(join(base, "config.json"), config);
  await writeText(join(base, "tokenizer_config.json"), {
    extra_ids: 100,
    eos_token: "</s>",
    pad_token: "<pad>",
  });
  const shapes = t5.build(config).parameters;
  const copies = {
    "encoder.embed_tokens.weight": "shared.weight",
    "decoder.embed_tokens.weight": "shared.weight",
  };
  await torchFile(join(base, "pytorch_model.bin"), tensors(shapes, 0), copies);
  for (const [i, task] of merged.entries()) {
    const folder = join(root, "experts", task);
    await mkdir(folder, { recursive: true });
    await writeText(join(folder, "adapter_config.json"), {
      peft_type: "IA3",
      task_type: "SEQ_2_SEQ_LM",
      target_modules: ["k", "v", "wo"],
      feedforward_modules: ["wo"],
      base_model_name_or_path: "bigscience/T0_3B",
      inference_mode: true,
      fan_in_fan_out: false,
    });
    const vectors = tensors(ia3Shapes(shapes), i + 1);
    await writeSafetensors(join(folder, "adapter_model.safetensors"), vectors, { format: "pt" });
  }
  for (const task of [...merged, ...heldOut])
    await writeRows(join(root, "data"), task, ["validation", ...(withTest.has(task) ? ["test"] : [])]);
  for (const [folder, entries] of Object.entries(promptsource)) {
    const templates = Object.fromEntries(entries.map((entry, i) => [`id-${i}`, entry]));
    await writeText(join(root, "promptsource", folder, "templates.yaml"), { dataset: folder, templates });
  }
}

const imageTasks = "sun397,cars,resisc45,eurosat,svhn,gtsrb,mnist,dtd".split(",");

/** A picture whose colour is its class's. */
function picture(label: number, i: number): Buffer {
  const png = new PNG({ width: 32, height: 32 });
  png.data.fill(255);
  for (let p = 0; p < 32 * 32; p++)
    for (let c = 0; c < 3; c++) png.data[4 * p + c] = (37 * (label + 1) * (c + 1) + 11 * i + p) % 256;
  return PNG.sync.write(png);
}

/** CLIP ViT-B/32: both towers and a tokenizer; experts are vision towers, as fusion_bench publishes them. */
async function makeClip(root: string): Promise<void> {
  const tower = {
    hidden_size: 24,
    intermediate_size: 48,
    num_attention_heads: 2,
    num_hidden_layers: layersOf(12),
  };
  const vision = {
    ...tower,
    model_type: "clip_vision_model",
    image_size: 224,
    patch_size: 32,
    projection_dim: 16,
  };
  const base = join(root, "base");
  const tokenizer = wordTokenizer([
    ...words,
    ...imageTasks.flatMap((task) => registry.get(task)?.labels ?? []),
  ]);
  const config = {
    architectures: ["CLIPModel"],
    model_type: "clip",
    projection_dim: 16,
    vision_config: vision,
    text_config: {
      ...tower,
      model_type: "clip_text_model",
      vocab_size: tokenizer.size,
      max_position_embeddings: 77,
      eos_token_id: 3,
    },
  };
  const [seen, read] = [clip.build(config).parameters, clipText(config).parameters];
  await safetensorsModel(base, config, [...seen, ...read, ["logit_scale", []]], 0);
  await writeText(join(base, "tokenizer.json"), tokenizer.json);
  await writeText(join(base, "preprocessor_config.json"), {
    image_processor_type: "CLIPImageProcessor",
    do_resize: true,
    size: { shortest_edge: 224 },
    resample: 3,
    do_center_crop: true,
    crop_size: { height: 224, width: 224 },
    do_rescale: true,
    do_normalize: true,
    do_convert_rgb: true,
    image_mean: [0.48, 0.46, 0.41],
    image_std: [0.27, 0.26, 0.28],
  });
  const ofVision = [...seen].filter(([name]) => name.startsWith("vision_model."));
  for (const [i, task] of imageTasks.entries()) {
    const own = { ...vision, architectures: ["CLIPVisionModel"] };
    await safetensorsModel(join(root, "experts", task), own, ofVision, i + 1);
    const count = registry.get(task)?.labels?.length ?? 0;
    for (const [split, each] of [
      ["train", 40],
      ["test", 8],
    ] as const)
      for (let n = 0; n < each; n++) {
        const label = (7 * n) % count;
        const path = join(root, "data", task, split, String(label), `${n}.png`);
        await writeBytes(path, picture(label, n));
      }
  }
}

const glueTasks = "cola,sst2,mrpc,stsb,qqp,mnli,qnli,rte".split(",");

/** bert-base-uncased, with its heads for words, and experts of GLUE's tasks. */
async function makeGlue(root: string): Promise<void> {
  const tokenizer = wordTokenizer(words);
  const config = {
    architectures: ["BertForMaskedLM"],
    model_type: "bert",
    hidden_act: "gelu",
    hidden_size: 24,
    num_hidden_layers: layersOf(12),
    num_attention_heads: 2,
    intermediate_size: 48,
    max_position_embeddings: 512,
    type_vocab_size: 2,
    layer_norm_eps: 1e-12,
    pad_token_id: 0,
    vocab_size: tokenizer.size,
  };
  const inner = [...bert.build(config).parameters];
  const named = inner.map(([name, shape]) => [`bert.${name}`, shape] as const);
  const pretrained = [
    ["cls.predictions.bias", [tokenizer.size]],
    ["cls.predictions.transform.dense.weight", [24, 24]],
    ["cls.predictions.transform.dense.bias", [24]],
  ] as const;
  await safetensorsModel(join(root, "base"), config, [...named, ...pretrained], 0);
  await writeText(join(root, "base", "tokenizer.json"), tokenizer.json);
  for (const [i, task] of glueTasks.entries()) {
    const outputs = registry.get(task)?.labels?.length ?? 1;
    const names = Array.from({ length: outputs }, (_, n) => [String(n), `LABEL_${n}`]);
    const own = {
      ...config,
      architectures: ["BertForSequenceClassification"],
      id2label: Object.fromEntries(names),
      label2id: Object.fromEntries(names.map(([n, name]) => [name, Number(n)])),
      ...(outputs === 1 && { problem_type: "regression" }),
    };
    const head = [
      ["classifier.weight", [outputs, 24]],
      ["classifier.bias", [outputs]],
    ] as const;
    await safetensorsModel(join(root, "experts", task), own, [...named, ...head], i + 1);
    await writeText(join(root, "experts", task, "tokenizer.json"), tokenizer.json);
    await writeRows(join(root, "data"), task, ["train", "validation"]);
  }
}

const settings: Readonly<Record<string, (root: string) => Promise<void>>> = {
  t0: makeT0,
  clip: makeClip,
  glue: makeGlue,
};
for (const name of o.settings.split(",")) {
  const make = settings[name];
  if (!make) throw new Error(`--settings ${name}: one of ${Object.keys(settings).join(", ")}`);
  await make(join(out, name));
  console.log(join(out, name));
}
