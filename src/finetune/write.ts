import { join } from "node:path";
import type { Variable } from "@tensorflow/tfjs-core";
import { adapterConfigName, adapterWeightsName } from "../checkpoint/adapter.js";
import { writeText } from "../checkpoint/files.js";
import type { Member } from "../checkpoint/family.js";
import { writeSafetensors, writeWeights, type TensorSource } from "../checkpoint/write.js";
import type { AdapterModules } from "../adapter-modules.js";
import type { HeadNames, Model } from "../models/types.js";
import type { Task } from "../tasks/registry.js";
import { elements, fromFloat32, isFloat, toFloat32 } from "../tensor/dtype.js";
import type { FinetuneOptions, TrainingTask } from "./start.js";
import { writeAround } from "../folder/output.js";

/** What transformers calls a family's classes. */
const classNames: Record<string, string> = {
  bert: "Bert",
  roberta: "Roberta",
  "xlm-roberta": "XLMRoberta",
  camembert: "Camembert",
  gpt2: "GPT2",
  llama: "Llama",
  mistral: "Mistral",
  qwen2: "Qwen2",
  opt: "OPT",
  vit: "ViT",
};

function configOf({ checkpoint: { config } }: Member, task: Task, hasHead: boolean): Record<string, unknown> {
  if (!hasHead) return { ...config };
  const stem = classNames[String(config["model_type"])];
  const classified = task.kind === "image" ? "ImageClassification" : "SequenceClassification";
  const kind = task.kind === "choice" ? "MultipleChoice" : classified;
  const labels = task.labels ?? [];
  return {
    ...config,
    ...(stem && { architectures: [`${stem}For${kind}`] }),
    ...(labels.length > 0 && {
      num_labels: labels.length,
      id2label: Object.fromEntries(labels.map((label, i) => [String(i), label])),
      label2id: Object.fromEntries(labels.map((label, i) => [label, i])),
    }),
  };
}

export interface Trained {
  readonly plain: Model;
  readonly head: HeadNames | undefined;
  readonly trainingTasks: readonly TrainingTask[];
  readonly best: ReadonlyMap<string, Variable>;
  readonly adapterModules: AdapterModules;
}

/** Writes the expert as transformers or PEFT does; of several tasks, the model with a head each in heads/<task>. */
export async function writeExpert(
  out: string,
  base: Member,
  { plain, head, trainingTasks, best, adapterModules }: Trained,
  options: FinetuneOptions,
): Promise<void> {
  const source = (name: string, from: string): TensorSource => {
    const v = best.get(from)!;
    return {
      name,
      dtype: "F32",
      shape: v.shape,
      bytes: async () => fromFloat32((await v.data()) as Float32Array, "F32"),
    };
  };
  const headSources = (prefix: string): TensorSource[] => {
    if (!head) return [];
    const parts = [
      ["weight", head.weight],
      ["bias", head.bias],
      ["dense.weight", head.dense && `${head.dense}.weight`],
      ["dense.bias", head.dense && `${head.dense}.bias`],
    ] as const;
    return parts.flatMap(([part, name]) =>
      name !== undefined && best.has(`${prefix}${part}`) ? [source(name, `${prefix}${part}`)] : [],
    );
  };
  const single = trainingTasks.length === 1 ? trainingTasks[0] : undefined;
  const own = single ? headSources(single.prefix) : [];
  if (options.how === "full") {
    const canonical = new Map([...base.actual].map(([name, stored]) => [stored, name]));
    const body = base.checkpoint.names
      .filter((stored) => !own.some(({ name }) => name === canonical.get(stored)))
      .map((stored): TensorSource => {
        const name = canonical.get(stored);
        const entry = base.checkpoint.entry(stored)!;
        if (name !== undefined && plain.parameters.has(name))
          return { ...source(stored, name), shape: entry.shape };
        return {
          name: stored,
          dtype: isFloat(entry.dtype) ? "F32" : entry.dtype,
          shape: entry.shape,
          bytes: async () =>
            isFloat(entry.dtype)
              ? fromFloat32(toFloat32(await base.checkpoint.read(stored)), "F32")
              : (await base.checkpoint.read(stored)).bytes,
        };
      });
    await writeWeights(out, [...body, ...own], 5e9);
    await writeAround(out, base, "F32");
    if (single)
      await writeText(join(out, "config.json"), {
        ...configOf(base, single.task, head !== undefined),
        torch_dtype: undefined,
        dtype: "float32",
      });
  } else {
    const stored = (module: string) => base.actual.get(`${module}.weight`)!.replace(/\.weight$/, "");
    const sources = [...adapterModules].flatMap(([module, { lora, ia3 }]): TensorSource[] => {
      const name = `base_model.model.${stored(module)}`;
      if (lora)
        return (["A", "B"] as const).map((side) =>
          source(`${name}.lora_${side}.weight`, `${module}.lora_${side}`),
        );
      const plainSource = source(`${name}.ia3_l`, `${module}.ia3_l`);
      const size = elements(plainSource.shape);
      return [{ ...plainSource, shape: ia3 === "out" ? [size, 1] : [1, size] }];
    });
    await writeSafetensors(join(out, adapterWeightsName), [
      ...sources,
      ...own.map((one) => ({ ...one, name: `base_model.model.${one.name}` })),
    ]);
    const modules = [...adapterModules.keys()].map(stored);
    const language = plain.scores === "encoder-decoder" ? "SEQ_2_SEQ_LM" : "CAUSAL_LM";
    const classified = single?.task.kind === "image" ? undefined : "SEQ_CLS";
    const task = head === undefined ? language : classified;
    await writeText(join(out, adapterConfigName), {
      base_model_name_or_path: options.base,
      task_type: task ?? null,
      inference_mode: true,
      fan_in_fan_out: [...adapterModules.keys()].some((module) => plain.transposed?.has(module)),
      target_modules: modules,
      modules_to_save: own.length ? [...new Set(own.map(({ name }) => name.split(".")[0]))] : null,
      ...(options.how === "lora"
        ? {
            peft_type: "LORA",
            r: options.rank,
            lora_alpha: options.alpha,
            lora_dropout: 0,
            bias: "none",
            use_rslora: false,
            init_lora_weights: true,
          }
        : {
            peft_type: "IA3",
            feedforward_modules: [...adapterModules]
              .filter(([, { ia3 }]) => ia3 === "in")
              .map(([module]) => stored(module)),
            init_ia3_weights: true,
          }),
    });
    if (single && head) await writeText(join(out, "config.json"), configOf(base, single.task, true));
  }
  if (!single) {
    for (const { task, prefix } of trainingTasks) {
      if (head) await writeSafetensors(join(out, "heads", task.id, "head.safetensors"), headSources(prefix));
      await writeText(join(out, "heads", task.id, "config.json"), configOf(base, task, head !== undefined));
    }
  }
}
