/**
 * Which tensor of one checkpoint is which of another. Nothing is guessed from numbers: names are brought to one
 * spelling by rules that are known (what a training's wrappers put in front, what transformers 5.24 renames as it
 * loads: conversion_mapping.py), and then by the backbone's prefix that one of two files has and the other has not.
 */
import { isRecord } from "./files.js";

type Renaming = readonly [from: RegExp, to: string];

const renamed = (name: string, renamings: readonly Renaming[]): string =>
  renamings.reduce((now, [from, to]) => now.replace(from, to), name);

/** FSDP, activation checkpointing, torch.compile and DeepSpeed put a module of theirs between two others. */
const wrapped = /(^|\.)(?:(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod|_forward_module)\.)+/g;

/** DistributedDataParallel stands before the whole model. */
const distributed = /^(?:module\.)+/;

/** How transformers spelled a norm's weights until 2019; it reads them in every architecture. */
const oldNorms: readonly Renaming[] = [
  [/LayerNorm\.gamma$/, "LayerNorm.weight"],
  [/LayerNorm\.beta$/, "LayerNorm.bias"],
];

/** torch.nn.utils.weight_norm, and the parametrization that came after it. */
const weightNorms: readonly Renaming[] = [
  [/\.parametrizations\.weight\.original0$/, ".weight_g"],
  [/\.parametrizations\.weight\.original1$/, ".weight_v"],
];

/** A language model within another model: until transformers 4.51, from 4.52 on, and as 5.10 to 5.23 saved some. */
const nestedModels: readonly Renaming[] = [
  [/^language_model\.lm_head\./, "lm_head."],
  [/^(?:model\.)?language_model\.(?:model\.)*/, "model.language_model."],
  [/^(vision_tower|vision_model|audio_tower|multi_modal_projector|image_newline)(?=\.|$)/, "model.$1"],
  [/^model\.vision_tower\.vision_model\./, "model.vision_tower."],
];

const qwenVision: readonly Renaming[] = [
  [/^visual\./, "model.visual."],
  [/^model\.(?!language_model\.|visual\.)/, "model.language_model."],
];

/** Modules of vision transformers, as transformers 5 names them. */
const visionTransformer: readonly Renaming[] = [
  [/(^|\.)encoder\.layer\./, "$1layers."],
  [/\.attention\.attention\.(?=(?:query|key|value)\.)/, ".attention."],
  [/\.attention\.query\./, ".attention.q_proj."],
  [/\.attention\.key\./, ".attention.k_proj."],
  [/\.attention\.value\./, ".attention.v_proj."],
  [/\.attention\.output\.dense\./, ".attention.o_proj."],
  [/\.intermediate\.dense\./, ".mlp.fc1."],
  [/\.output\.dense\./, ".mlp.fc2."],
];

const dino: readonly Renaming[] = [
  [/\.attention\.attention\.query\./, ".attention.q_proj."],
  [/\.attention\.attention\.key\./, ".attention.k_proj."],
  [/\.attention\.attention\.value\./, ".attention.v_proj."],
  [/\.attention\.output\.dense\./, ".attention.o_proj."],
  [/\.mlp\.weights_out\./, ".mlp.down_proj."],
];

/** By `model_type`. */
const ofType: Readonly<Record<string, readonly Renaming[]>> = {
  ...Object.fromEntries(["qwen2_vl", "qwen2_5_vl"].map((type) => [type, qwenVision])),
  ...Object.fromEntries(
    ["vit", "deit", "beit", "ijepa", "vit_mae", "vit_msn", "vivit", "audio-spectrogram-transformer"].map(
      (type) => [type, visionTransformer],
    ),
  ),
  ...Object.fromEntries(["dinov2", "dinov2_with_registers"].map((type) => [type, dino])),
  mixtral: [[/\.block_sparse_moe\./, ".mlp."]],
  gpt_neox: [[/^embed_out\./, "lm_head."]],
};

/** What a model's config says of its names. */
interface Spelled {
  readonly config: Readonly<Record<string, unknown>>;
  readonly names: readonly string[];
}

/** Takes off what wrappers put before names, and reads norms in their old spelling. */
export function unwrapped({ names }: Pick<Spelled, "names">): (name: string) => string {
  const isDistributed = names.length > 0 && names.every((name) => distributed.test(name));
  return (name) => {
    const plain = isDistributed ? name.replace(distributed, "") : name;
    return renamed(plain.replace(wrapped, "$1"), oldNorms);
  };
}

/** A name in the one spelling that all files of an architecture are brought to. */
export function spelling(model: Spelled): (name: string) => string {
  const { config } = model;
  const plain = unwrapped(model);
  const isNested = isRecord(config["text_config"]) || isRecord(config["vision_config"]);
  const type = config["model_type"];
  const own = typeof type === "string" && Object.hasOwn(ofType, type) ? ofType[type] : undefined;
  const renamings = [...weightNorms, ...(own ?? (isNested ? nestedModels : []))];
  return (name) => renamed(plain(name), renamings);
}

/** How many names of a model are found in another behind each prefix that may stand before them. */
function prefixCounts(names: Iterable<string>, without: ReadonlySet<string>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const name of names)
    for (let dot = name.indexOf("."); dot >= 0; dot = name.indexOf(".", dot + 1))
      if (without.has(name.slice(dot + 1))) {
        const prefix = name.slice(0, dot + 1);
        counts.set(prefix, (counts.get(prefix) ?? 0) + 1);
      }
  return counts;
}

const mostOf = (counts: ReadonlyMap<string, number>): readonly [prefix: string, count: number] =>
  [...counts].reduce((best, one) => (one[1] > best[1] ? one : best), ["", 0]);

/** The prefix of its backbone that one of two models has before its names and the other has not. */
export interface BackbonePrefix {
  readonly prefix: string;
  /** Whose names have it. */
  readonly of: "first" | "other";
}

/** @returns undefined where the names are alike as they stand */
export function backbonePrefix(
  first: ReadonlySet<string>,
  other: ReadonlySet<string>,
): BackbonePrefix | undefined {
  const alike = [...other].filter((name) => first.has(name)).length;
  if (alike === first.size || alike === other.size) return undefined;
  const [ofOther, otherCount] = mostOf(prefixCounts(other, first));
  const [ofFirst, firstCount] = mostOf(prefixCounts(first, other));
  if (Math.max(otherCount, firstCount) <= alike) return undefined;
  if (otherCount >= firstCount) return { prefix: ofOther, of: "other" };
  return { prefix: ofFirst, of: "first" };
}

/**
 * A model's names as another spells them. Names that the other has not (a head's) come out as names that it has not.
 * @returns from the model's own names to the first's
 */
export function namesAs(first: Spelled, other: Spelled): ReadonlyMap<string, string> {
  const [ofFirst, ofOther] = [spelling(first), spelling(other)];
  const stored = new Map(first.names.map((name) => [ofFirst(name), name]));
  const spelled = new Map(other.names.map((name) => [name, ofOther(name)]));
  const found = backbonePrefix(new Set(stored.keys()), new Set(spelled.values()));
  const inFirst = (name: string): string => {
    if (found?.of === "first" && stored.has(found.prefix + name)) return found.prefix + name;
    if (found?.of === "other" && name.startsWith(found.prefix)) return name.slice(found.prefix.length);
    return name;
  };
  return new Map([...spelled].map(([own, name]) => [own, stored.get(inFirst(name)) ?? inFirst(name)]));
}

/** Modules that stand on a backbone: classes of one architecture have their own, and some have none. */
const headModules =
  "lm_head|embed_out|score|classifier|classification_head|pre_classifier|qa_outputs|qa_classifier|cls|pooler|" +
  "lm_predictions|lm_head_\\w+|mask_predictions|generator_predictions|generator_lm_head|discriminator_predictions|" +
  "vocab_transform|vocab_layer_norm|vocab_projector|sequence_summary|multiple_choice_head|logits_proj|" +
  "final_logits_bias|predictions|head|mtp|distillation_classifier|cls_classifier|answer_classifier";
const head = new RegExp(`^(?:[\\w-]+\\.)?(?:${headModules})(?:\\.|$)`);

/** What is computed from the config when a model is built, and stored by some versions alone. */
const buffers =
  "position_ids|token_type_ids|inv_freq|original_inv_freq|masked_bias|num_batches_tracked|relative_position_index|" +
  "relative_coords_table|total_ops|total_params|attn\\.bias|attention\\.bias|embed_positions\\.weights";
const buffer = new RegExp(`(^|\\.)(${buffers})$`);

/** A second name of the one table that is looked up and scored with, in models that store it twice. */
const sharedTable = /^(?:model\.)?(?:encoder|decoder)\.embed_tokens\.weight$/;

/** Whether models of one architecture may have or lack a tensor of this name: it is no part of the backbone. */
export const isOptional = (name: string): boolean =>
  head.test(name) || buffer.test(name) || sharedTable.test(name);

/** The matrix that scores tokens, and the table that looks them up: in a tied model they are one. */
const outputLayer = /^(?:[\w-]+\.)*(?:lm_head|embed_out)\.weight$/;
const inputTable = /(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|shared)\.weight$/;

/** Whether a tensor of this name may be the table of embeddings once more. */
export const isTableCopy = (name: string): boolean => outputLayer.test(name) || sharedTable.test(name);

export const isOutputLayer = (name: string): boolean => outputLayer.test(name);
export const isInputTable = (name: string): boolean => inputTable.test(name) && !isOptional(name);

/** Whether a model scores tokens: a backbone has no output layer, tied or not. */
export function scoresTokens({ architectures }: Readonly<Record<string, unknown>>): boolean {
  const names: unknown[] = Array.isArray(architectures) ? architectures : [];
  return names.some((name) => /(ForCausalLM|LMHeadModel|ForConditionalGeneration)$/.test(String(name)));
}
