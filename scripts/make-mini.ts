/**
 * Makes the family that ships, from nothing: writes the synthetic data, trains a small BERT on its
 * words, fine-tunes an expert for each task, and saves them as Hugging Face folders.
 *
 *   node dist/scripts/make-mini.js [--backend node] [--out .]
 *   node dist/scripts/make-mini.js --out merged/mini --train --data-only                    the data
 *   alone, with training files node dist/scripts/make-mini.js --out merged/mini --name wide --hidden
 *   192 --layers 6    a family of another size node dist/scripts/make-mini.js --out merged/mini --name
 *   weak --base-steps 200           … on a base that learned less
 *
 * The engine rounds in its own way, so the bytes are equal only on the same one; what ships was made with `node`
 * (some minutes; `wasm` takes several times as long).
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startEngine, type EngineName } from "../src/backend/index.js";
import { writeText } from "../src/checkpoint/files.js";
import { writeWeights, type TensorSource } from "../src/checkpoint/write.js";
import { bert } from "../src/models/bert.js";
import { type EncodedExample } from "../src/tasks/batches.js";
import { encodeExamples } from "../src/tasks/head-rows.js";
import { parseExample } from "../src/tasks/parse.js";
import type { Task } from "../src/tasks/registry.js";
import { loadTokenizer } from "../src/tasks/tokenize.js";
import { fromFloat32 } from "../src/tensor/dtype.js";
import { accuracyOf, finetune, initialValues, pretrain, toVariables, type Values } from "./mini/finetune.js";
import { dice, draw, tasks, type Row } from "./mini/generate.js";
import { wordTokenizer } from "./mini/tokenizer.js";

const { values: options } = parseArgs({
  options: {
    backend: { type: "string", default: "auto" },
    out: { type: "string", default: "." },
    name: { type: "string", default: "mini" },
    hidden: { type: "string", default: "96" },
    layers: { type: "string", default: "4" },
    "base-steps": { type: "string", default: "2000" },
    train: { type: "boolean", default: false },
    "data-only": { type: "boolean", default: false },
  },
});
const width = Number(options.hidden);
const seed = "mini-1";
const sizes = { train: 4000, validation: 64, test: 500 };
const config = {
  architectures: ["BertModel"],
  model_type: "bert",
  hidden_act: "gelu",
  position_embedding_type: "absolute",
  hidden_size: width,
  num_hidden_layers: Number(options.layers),
  num_attention_heads: width / 24,
  intermediate_size: 4 * width,
  max_position_embeddings: 48,
  type_vocab_size: 2,
  layer_norm_eps: 1e-12,
  pad_token_id: 0,
  initializer_range: 0.05,
  attention_probs_dropout_prob: 0,
  hidden_dropout_prob: 0,
  dtype: "float16",
};
const basePlan = { steps: Number(options["base-steps"]), lr: 2e-3, batchSize: 64, seed: 1 };
const expertPlan: Record<string, { steps: number; lr: number; batchSize: number; seed: number }> = {
  rte: { steps: 800, lr: 1e-3, batchSize: 32, seed: 2 },
  cb: { steps: 250, lr: 1e-3, batchSize: 32, seed: 3 },
  copa: { steps: 250, lr: 1e-3, batchSize: 32, seed: 4 },
  sst2: { steps: 500, lr: 1e-3, batchSize: 32, seed: 5 },
  trec6: { steps: 400, lr: 1e-3, batchSize: 32, seed: 6 },
};

const textsOf = ({ text_a, text_b, choices }: Row): string[] => [
  text_a,
  ...(text_b ? [text_b] : []),
  ...(choices ?? []),
];
const checkpoints = join(options.out, "checkpoints", options.name);
const data = join(options.out, "data", "mini");

async function saveModel(folder: string, weights: Values, extra: object): Promise<void> {
  const sources = [...weights].map(([name, { shape, values }]): TensorSource => ({
    name,
    shape,
    dtype: "F16",
    bytes: async () => fromFloat32(values, "F16"),
  }));
  await writeWeights(folder, sources, 1e9);
  await writeText(join(folder, "config.json"), { ...config, vocab_size: tokenizer.size, ...extra });
}

// Data: test and validation first, so that no training row stands in them.
const rows: Record<string, Record<keyof typeof sizes, Row[]>> = {};
for (const task of Object.keys(tasks)) {
  const taken = new Set<string>();
  const of = (split: "test" | "validation" | "train") => draw(task, `${seed}/${split}`, sizes[split], taken);
  rows[task] = { test: of("test"), validation: of("validation"), train: of("train") };
  for (const split of ["validation", "test", ...(options.train ? ["train" as const] : [])] as const) {
    await writeText(
      join(data, task, `${split}.jsonl`),
      rows[task][split].map((row) => `${JSON.stringify(row)}\n`).join(""),
    );
  }
}
await writeText(
  join(data, "tasks.json"),
  Object.fromEntries(
    Object.entries(tasks).map(([id, { kind, labels, what }]) => [
      id,
      { kind, labels, synthetic: true, what: `${what} (synthetic)` },
    ]),
  ),
);

if (options["data-only"]) process.exit(0);

const allTexts = Object.values(rows)
  .flatMap((splits) => Object.values(splits).flat())
  .flatMap(textsOf);
const tokenizer = wordTokenizer(allTexts);
await writeText(join(checkpoints, "base", "tokenizer.json"), tokenizer.json);
const encoder = await loadTokenizer(join(checkpoints, "base"), config.max_position_embeddings);
const model = bert.build({ ...config, vocab_size: tokenizer.size });

console.log(`engine ${await startEngine(options.backend as EngineName)}; ${tokenizer.size} words`);
const report = (name: string) => (step: number, loss: number) =>
  console.log(`${name} step ${step} loss ${loss.toFixed(4)}`);

// The base: the words of all tasks, without a label. Only what holds is written (entailed pairs, right endings), so
// that guessing a hidden word teaches which words belong together.
const holds = (task: string, { label }: Row) => task !== "rte" || label === 0;
const corpus = encodeExamples(
  Object.entries(rows)
    .flatMap(([task, { train }]) => train.filter((row) => holds(task, row)))
    .map((row) => {
      const second = row.choices ? row.choices[row.label] : row.text_b;
      return {
        kind: "text" as const,
        fields: {},
        texts: [second === undefined ? ([row.text_a] as const) : ([row.text_a, second] as const)],
        label: 0,
      };
    }),
  encoder,
  "classify",
);
const base = toVariables(await initialValues(model, 7));
await pretrain(model, base, corpus, 4, dice(`${seed}/mask`), basePlan, report("base"));
const baseValues = await base.read();
base.dispose();
await saveModel(join(checkpoints, "base"), baseValues, {});

for (const [id, spec] of Object.entries(tasks)) {
  const task = {
    id,
    kind: spec.kind,
    labels: spec.labels,
    max_new_tokens: 1,
    synthetic: true,
    what: "",
  } as Task;
  const isChoice = spec.kind === "choice";
  const encode = (list: Row[]): EncodedExample[] =>
    encodeExamples(
      list.map((row) => parseExample({ fields: { ...row }, where: id }, task)!),
      encoder,
      isChoice ? "choose" : "classify",
    );
  const { expert, head } = await finetune(
    model,
    baseValues,
    encode(rows[id]!.train),
    spec.labels?.length ?? 1,
    expertPlan[id]!,
    report(id),
  );
  const accuracy = await accuracyOf(model, expert.weights, head, encode(rows[id]!.test));
  console.log(`${id}: test accuracy ${accuracy.toFixed(4)}`);
  const heads: Values = new Map([
    ["classifier.weight", { shape: head.weight.shape, values: (await head.weight.data()) as Float32Array }],
    ["classifier.bias", { shape: head.bias.shape, values: (await head.bias.data()) as Float32Array }],
  ]);
  const prefixed = new Map([...(await expert.read())].map(([name, value]) => [`bert.${name}`, value]));
  const labels = spec.labels && {
    id2label: Object.fromEntries(spec.labels.map((name, i) => [i, name])),
    label2id: Object.fromEntries(spec.labels.map((name, i) => [name, i])),
  };
  await saveModel(join(checkpoints, "experts", id), new Map([...prefixed, ...heads]), {
    architectures: [isChoice ? "BertForMultipleChoice" : "BertForSequenceClassification"],
    ...labels,
  });
  await writeText(join(checkpoints, "experts", id, "expert.json"), {
    task: id,
    synthetic: true,
    ...expertPlan[id],
    test_accuracy: accuracy,
    test_examples: sizes.test,
  });
  expert.dispose();
  [head.weight, head.bias].forEach((v) => v.dispose());
}
process.exit(0);
