/**
 * LoRA experts beside the weights and as the models that they stand for: one step of each in a process
 * of its own, the largest difference of their gradients, and the memory of both.
 *
 *   node dist/scripts/bench/lora.js --family checkpoints/smollm --tasks a,b,c --make
 *   node dist/scripts/bench/lora.js --family checkpoints/smollm --tasks a,b,c [--backend node] [--out experiments/lora]
 *
 * --make writes adapters of random numbers, of rank 8.
 */
import { rowsBatch } from "../rows-batch.js";
import { spawnSync } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { z } from "zod";
import { at } from "../../src/at.js";
import { engineNames, startEngine, watchMemory } from "../../src/backend/index.js";
import { openFamily, openMember } from "../../src/checkpoint/family.js";
import { writeSafetensors, type TensorSource } from "../../src/checkpoint/write.js";
import { factoredFamily } from "../../src/merge/factored.js";
import { columnOf } from "../../src/merge/source.js";
import { makeTable } from "../../src/merge/table.js";
import { loadTaskVectors } from "../../src/merge/vectors.js";
import { withAdapters } from "../../src/models/adapters.js";
import { size } from "../../src/report/memory.js";
import { buildModel, readFamily } from "../../src/inputs/prepare.js";
import { fromFloat32 } from "../../src/tensor/dtype.js";
import { coefficientGradient } from "../../src/train/step.js";
import { lastLine } from "./processes.js";

const { values: o } = parseArgs({
  options: {
    family: { type: "string", default: "checkpoints/smollm" },
    tasks: { type: "string", default: "sst2,trec6,cola" },
    backend: { type: "string", default: "node" },
    form: { type: "string" },
    make: { type: "boolean", default: false },
    out: { type: "string" },
  },
});
const tasks = o.tasks.split(",");

const resultSchema = z.object({
  form: z.string(),
  loss: z.number(),
  seconds: z.number(),
  device: z.number(),
  process: z.number(),
  gradient: z.record(z.string(), z.array(z.number())),
});
type Result = z.infer<typeof resultSchema>;

/** One step under coefficients of 0.3: what it gives and takes. */
async function measure(form: string): Promise<Result> {
  await startEngine(z.enum(engineNames).parse(o.backend));
  const memory = watchMemory();
  const { canonical, outputLayers } = await readFamily(join(o.family, "base"));
  const family = await openFamily(
    await openMember("base", join(o.family, "base"), canonical),
    tasks.map((task) => ({ task, folder: join(o.family, "experts", task) })),
    canonical,
  );
  const plain = buildModel(family.base, at(outputLayers, 0));
  const factored = form === "beside the weights" ? await factoredFamily(family, canonical) : undefined;
  const model = factored ? withAdapters(plain, factored.adapterModules) : plain;
  const { base, experts } = factored ?? family;
  const vectors = await loadTaskVectors(
    { base, columns: experts.map(columnOf) },
    [...model.parameters.keys()],
    { residency: "device", tables: model.tables },
  );
  const rows = Array.from({ length: 8 }, (_, r) => ({
    ids: Array.from({ length: 48 }, (_, i) => 10 + (((r >> 1) * 131 + i * 17) % 4000)),
    types: [],
    targets: [100 + 7 * r],
  }));
  const table = makeTable(vectors.layers.length, tasks.length, () => 0.3);
  const started = performance.now();
  const { gradient, losses } = await coefficientGradient(
    { model, vectors, table },
    [{ head: undefined, weight: 1, batch: rowsBatch("choose", rows, [0, 1, 0, 1]) }],
    "cross-entropy",
  );
  return {
    form,
    loss: at(losses, 0),
    seconds: (performance.now() - started) / 1000,
    device: memory.peak(),
    process: process.resourceUsage().maxRSS * 1024,
    gradient: Object.fromEntries(
      vectors.layers.map(({ id }, row) => [
        id,
        [...gradient.values.subarray(row * tasks.length, (row + 1) * tasks.length)],
      ]),
    ),
  };
}

/** A LoRA adapter of rank 8 on the query, value and output projections and the last product of every layer. */
async function makeAdapter(task: string, seed: number): Promise<void> {
  const { canonical } = await readFamily(join(o.family, "base"));
  const base = await openMember("base", join(o.family, "base"), canonical);
  const random = (size: number, scale: number, place: number) =>
    fromFloat32(
      Float32Array.from(
        { length: size },
        (_, i) => scale * Math.sin(12.9898 * (i + 1) + 78.233 * (seed + place)),
      ),
      "F32",
    );
  const modules = base.checkpoint.names.filter((name) =>
    /\.(q_proj|v_proj|o_proj|down_proj)\.weight$/.test(name),
  );
  const folder = join(o.family, "experts", task);
  await mkdir(folder, { recursive: true });
  await writeSafetensors(
    join(folder, "adapter_model.safetensors"),
    modules.flatMap((name, m): TensorSource[] => {
      const shape = base.checkpoint.entry(name)?.shape ?? [];
      const [out, input] = [at(shape, 0), at(shape, 1)];
      const module = `base_model.model.${name.replace(/\.weight$/, "")}`;
      return [
        {
          name: `${module}.lora_A.weight`,
          dtype: "F32",
          shape: [8, input],
          bytes: async () => random(8 * input, 0.05, 2 * m),
        },
        {
          name: `${module}.lora_B.weight`,
          dtype: "F32",
          shape: [out, 8],
          bytes: async () => random(8 * out, 0.02, 2 * m + 1),
        },
      ];
    }),
  );
  await writeFile(
    join(folder, "adapter_config.json"),
    JSON.stringify({
      peft_type: "LORA",
      r: 8,
      lora_alpha: 16,
      target_modules: ["q_proj", "v_proj", "o_proj", "down_proj"],
    }),
  );
  await base.checkpoint.close();
}

if (o.make) {
  for (const [i, task] of tasks.entries()) await makeAdapter(task, 1000 * (i + 1));
  process.exit(0);
}
if (o.form !== undefined) {
  process.stdout.write(`${JSON.stringify(await measure(o.form))}\n`);
  process.exit(0);
}
function measureApart(form: string): Result {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [
      fileURLToPath(import.meta.url),
      "--family",
      o.family,
      "--tasks",
      o.tasks,
      "--backend",
      o.backend,
      "--form",
      form,
    ],
    { encoding: "utf8", maxBuffer: 1e9 },
  );
  if (status !== 0) throw new Error(stderr);
  return resultSchema.parse(JSON.parse(lastLine(stdout)));
}
const beside = measureApart("beside the weights");
const models = measureApart("as models");
/** Every coefficient's gradient, in one order. */
const all = ({ gradient }: Result) => Object.keys(models.gradient).flatMap((id) => gradient[id] ?? []);
const expected = all(models);
const scale = Math.max(...expected.map(Math.abs));
const worst = Math.max(...all(beside).map((g, i) => Math.abs(g - at(expected, i)))) / scale;
const text = [
  `One step of 8 rows of 49 tokens, ${tasks.length} LoRA experts (${tasks.join(", ")}) of ` +
    `${o.family}, ${o.backend} engine, task vectors on the device.`,
  "",
  "| LoRA | loss | s | device peak | process peak |",
  "| --- | ---: | ---: | ---: | ---: |",
  ...[beside, models].map(
    ({ form, loss, seconds, device, process: whole }) =>
      `| ${form} | ${loss.toFixed(6)} | ${seconds.toFixed(1)} | ${size(device)} | ${size(whole)} |`,
  ),
  "",
  `${expected.length} coefficients; largest difference of the gradients ${worst.toExponential(1)} of the largest.`,
  "",
].join("\n");
console.log(text);
if (o.out !== undefined) {
  await mkdir(o.out, { recursive: true });
  await writeFile(join(o.out, "results.md"), text);
}
