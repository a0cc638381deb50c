import { join } from "node:path";
import type { Variable } from "@tensorflow/tfjs-core";
import { adapterWeightsName } from "../checkpoint/adapter.js";
import { lookUp } from "../at.js";
import { storedName, type Member } from "../checkpoint/family.js";
import { entryOf, adapterConfigName } from "../checkpoint/folder.js";
import { writeText } from "../checkpoint/files.js";
import { writeSafetensors, writeWeights, type TensorSource } from "../checkpoint/write.js";
import type { AdapterModule, AdapterModules } from "../adapter-modules.js";
import { bodyName, classPrefix, headName, savedModules } from "../models/class-names.js";
import { familyOf } from "../models/index.js";
import { taskConfig } from "../inputs/task-config.js";
import { isOptional } from "../checkpoint/names.js";
import { classNamed } from "../inputs/data.js";
import type { HeadNames, Model } from "../models/types.js";
import type { Task } from "../tasks/registry.js";
import { elements, fromFloat32, isFloat, toFloat32 } from "../tensor/dtype.js";
import { fileNames } from "../folder/files.js";
import { headFolder, headPath } from "../folder/places.js";
import { keepEmbeddingFiles } from "../inputs/embedding-form.js";
import { headKind } from "../inputs/prepare.js";
import { isEmbedded } from "../tasks/head-rows.js";
import { headNamesFor, headTensors } from "../models/layers.js";
import type { FinetuneOptions } from "./start.js";
import type { TrainingTask } from "./tasks.js";
import { writeAround } from "../folder/output.js";

const configOf = (
  { checkpoint: { config } }: Member,
  task: Task,
  hasHead: boolean,
): Record<string, unknown> => (hasHead ? taskConfig(config, task) : { ...config });

/** The class of transformers that opens the result: with its task's head, or one that says texts. */
function classOfResult(base: Member, { head }: FinetunedModel, single: TrainingTask): string {
  if (!head) return "ForCausalLM";
  return classNamed(taskConfig(base.checkpoint.config, single.task)) ?? "";
}

/** What a fine-tuning came to: the best epoch's tensors. */
export interface FinetunedModel {
  readonly plain: Model;
  readonly head: HeadNames | undefined;
  readonly tasks: readonly TrainingTask[];
  readonly best: ReadonlyMap<string, Variable>;
  readonly adapterModules: AdapterModules;
}

/** A trained tensor under the name that its file has for it. */
function trainedSource(best: FinetunedModel["best"], name: string, from: string): TensorSource {
  const v = lookUp(best, from);
  return {
    name,
    dtype: "F32",
    shape: v.shape,
    bytes: async () => fromFloat32(await v.data<"float32">(), "F32"),
  };
}

/** A task's head, under the names of the model's family. */
function headSources({ head: form, best }: FinetunedModel, { prefix, task }: TrainingTask): TensorSource[] {
  if (!form) return [];
  const head = headNamesFor(form, headKind(task), () => true);
  const parts = [
    ["weight", head.weight],
    ["bias", head.bias],
    ["dense.weight", head.dense && `${head.dense}.weight`],
    ["dense.bias", head.dense && `${head.dense}.bias`],
  ] as const;
  return parts.flatMap(([part, name]) => {
    if (name === undefined || !best.has(`${prefix}${part}`)) return [];
    return [trainedSource(best, name, `${prefix}${part}`)];
  });
}

/** A tensor that is not trained, floats in float32. */
function untrainedSource({ checkpoint }: Member, stored: string): TensorSource {
  const { dtype, shape } = entryOf(checkpoint, stored);
  if (!isFloat(dtype))
    return { name: stored, dtype, shape, bytes: async () => (await checkpoint.read(stored)).bytes };
  const bytes = async () => fromFloat32(toFloat32(await checkpoint.read(stored)), "F32");
  return { name: stored, dtype: "F32", shape, bytes };
}

/** Where one task was learned: the task, and its head, which the model carries. */
interface SingleTask {
  readonly single: TrainingTask | undefined;
  readonly own: readonly TensorSource[];
}

/** Writes every weight, as transformers does. */
async function writeWhole(
  out: string,
  base: Member,
  model: FinetunedModel,
  { own, single }: SingleTask,
): Promise<void> {
  const { plain, head, best } = model;
  const canonical = new Map([...base.actual].map(([name, stored]) => [stored, name]));
  const family = familyOf(base.checkpoint.config, base.checkpoint.folder);
  const isPrefixed = base.checkpoint.names.some((name) => name.startsWith(`${family.backbone}.`));
  const hasClass = single !== undefined && isPrefixed && !isEmbedded(single.task);
  const architecture = single && !isEmbedded(single.task) ? classOfResult(base, model, single) : "";
  const prefix = hasClass ? classPrefix(family, architecture) : "";
  const inClass = (stored: string) =>
    prefix === "" || isOptional(stored) ? stored : bodyName(stored, family, prefix);
  // What belongs to heads, of any kind: the base's own are none of the result's.
  const heads = new Set([...own.map(({ name }) => name), ...headTensors(head)]);
  const body = base.checkpoint.names.flatMap((stored): TensorSource[] => {
    const name = canonical.get(stored);
    if (name !== undefined && heads.has(name)) return [];
    const written = inClass(stored);
    if (name === undefined || !plain.parameters.has(name))
      return [{ ...untrainedSource(base, stored), name: written }];
    return [{ ...trainedSource(best, written, name), shape: entryOf(base.checkpoint, stored).shape }];
  });
  const ownInClass = own.map((one) => ({
    ...one,
    name: headName(one.name, family, { architecture, prefix }),
  }));
  await writeWeights(out, [...body, ...ownInClass], 5e9);
  await writeAround(out, base, "F32");
  if (!single) return;
  const config = configOf(base, single.task, head !== undefined);
  await writeText(join(out, fileNames.config), { ...config, torch_dtype: undefined, dtype: "float32" });
}

/** A module's tensors under PEFT's names. @param name the module as PEFT calls it */
function adapterSources(
  best: FinetunedModel["best"],
  module: string,
  name: string,
  { lora, ia3 }: AdapterModule,
): TensorSource[] {
  if (lora)
    return ["A", "B"].map((side) =>
      trainedSource(best, `${name}.lora_${side}.weight`, `${module}.lora_${side}`),
    );
  const vector = trainedSource(best, `${name}.ia3_l`, `${module}.ia3_l`);
  const size = elements(vector.shape);
  return [{ ...vector, shape: ia3 === "out" ? [size, 1] : [1, size] }];
}

/** PEFT's name for what the adapted model is used for; null where it has none. */
function taskType({ plain, head }: FinetunedModel, single: TrainingTask | undefined): string | null {
  const types: Partial<Record<Task["kind"], string>> = { tokens: "TOKEN_CLS", span: "QUESTION_ANS" };
  if (single && isEmbedded(single.task)) return "FEATURE_EXTRACTION";
  if (head) return single?.task.kind === "image" ? null : (types[single?.task.kind ?? "single"] ?? "SEQ_CLS");
  return plain.scores === "encoder-decoder" ? "SEQ_2_SEQ_LM" : "CAUSAL_LM";
}

/** The part of an adapter's config that is of its kind. */
function kindConfig(
  { how, rank, alpha }: FinetuneOptions,
  feedforward: readonly string[],
): Record<string, unknown> {
  if (how === "ia3") return { peft_type: "IA3", feedforward_modules: feedforward, init_ia3_weights: true };
  return {
    peft_type: "LORA",
    r: rank,
    lora_alpha: alpha,
    lora_dropout: 0,
    bias: "none",
    use_rslora: false,
    init_lora_weights: true,
  };
}

/** Writes an adapter, as PEFT does. */
async function writeTrainedAdapter(
  out: string,
  base: Member,
  model: FinetunedModel,
  { own, single, options }: SingleTask & { readonly options: FinetuneOptions },
): Promise<void> {
  const { plain, head, best, adapterModules } = model;
  const family = familyOf(base.checkpoint.config, base.checkpoint.folder);
  // PEFT names modules as the class has them that it stands on, whatever class the base was saved as.
  const hasClass = single && family.backbone !== undefined && !isEmbedded(single.task);
  const architecture = hasClass ? classOfResult(base, model, single) : "";
  const prefix = hasClass ? classPrefix(family, architecture) : "";
  const modules = [...adapterModules].map(([module, adapter]) => {
    const stored = storedName(base, `${module}.weight`).replace(/\.weight$/, "");
    const isOwn = prefix === "" || isOptional(`${stored}.`);
    return { module, adapter, stored: isOwn ? stored : bodyName(stored, family, prefix) };
  });
  const saved = own.map((one) => ({ ...one, name: headName(one.name, family, { architecture, prefix }) }));
  await writeSafetensors(join(out, adapterWeightsName), [
    ...modules.flatMap(({ module, adapter, stored }) =>
      adapterSources(best, module, `base_model.model.${stored}`, adapter),
    ),
    ...saved.map((one) => ({ ...one, name: `base_model.model.${one.name}` })),
  ]);
  const whole = savedModules(
    saved.map(({ name }) => name),
    prefix,
  );
  await writeText(join(out, adapterConfigName), {
    base_model_name_or_path: options.base,
    task_type: taskType(model, single),
    inference_mode: true,
    fan_in_fan_out: modules.some(({ module }) => plain.transposed?.has(module)),
    target_modules: modules.map(({ stored }) => stored),
    modules_to_save: whole.length ? whole : null,
    ...kindConfig(
      options,
      modules.filter(({ adapter }) => adapter.ia3 === "in").map(({ stored }) => stored),
    ),
  });
  if (single && head) await writeText(join(out, fileNames.config), configOf(base, single.task, true));
}

/** Writes the expert as transformers or PEFT does; of several tasks, the model with a head each in heads/<task>. */
export async function writeExpert(
  out: string,
  base: Member,
  model: FinetunedModel,
  options: FinetuneOptions,
): Promise<void> {
  const { head, tasks } = model;
  const single = tasks.length === 1 ? tasks[0] : undefined;
  const own = single ? headSources(model, single) : [];
  if (options.how === "full") await writeWhole(out, base, model, { own, single });
  else await writeTrainedAdapter(out, base, model, { own, single, options });
  if (options.how === "full" && tasks.some(({ task }) => isEmbedded(task)))
    await keepEmbeddingFiles(out, { width: model.plain.width, maxLength: options.maxLength });
  if (single) return;
  for (const one of tasks) {
    const { task } = one;
    if (head) await writeSafetensors(headPath(out, task.id), headSources(model, one));
    const config = configOf(base, task, head !== undefined);
    await writeText(join(headFolder(out, task.id), fileNames.config), config);
  }
}
