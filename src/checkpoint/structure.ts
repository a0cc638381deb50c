/** Whether models are of one architecture, by what their configs say. Nothing is read but config.json. */
import { UserError } from "../errors.js";
import type { Member } from "./family.js";
import { isRecord } from "./files.js";

type ModelConfig = Readonly<Record<string, unknown>>;

/** Counts of layers: what slices of a mergekit file change, and each model may have its own of there. */
const layerCounts = [
  "num_hidden_layers",
  "num_layers",
  "n_layer",
  "n_layers",
  "encoder_layers",
  "decoder_layers",
  "num_decoder_layers",
  "num_encoder_layers",
  "depth",
  "layer_types",
];

/** What else makes another model of the same weights. */
const structural = [
  "model_type",
  "hidden_size",
  "d_model",
  "n_embd",
  "dim",
  "embedding_size",
  "intermediate_size",
  "d_ff",
  "ffn_dim",
  "n_inner",
  "hidden_dim",
  "num_attention_heads",
  "n_head",
  "n_heads",
  "num_heads",
  "encoder_attention_heads",
  "decoder_attention_heads",
  "num_key_value_heads",
  "head_dim",
  "d_kv",
  "hidden_act",
  "hidden_activation",
  "activation_function",
  "activation",
  "feed_forward_proj",
  "layer_norm_eps",
  "layer_norm_epsilon",
  "rms_norm_eps",
  "norm_eps",
  "norm_epsilon",
  "position_embedding_type",
  "relative_attention_num_buckets",
  "relative_attention_max_distance",
  "partial_rotary_factor",
  "num_experts",
  "num_local_experts",
  "num_experts_per_tok",
  "patch_size",
];

/** Activations that have two names. */
const synonyms: Readonly<Record<string, string>> = { swish: "silu", gelu_pytorch_tanh: "gelu_new" };

const plainOf = (value: unknown): unknown => (typeof value === "string" ? (synonyms[value] ?? value) : value);

/** What of RoPE's settings is known: transformers 4 and 5 write them at different places. */
function ropeOf(config: ModelConfig): ModelConfig {
  const { rope_parameters: parameters, rope_theta: theta, rope_scaling: scaling } = config;
  const from = [parameters, scaling].find(isRecord) ?? {};
  const { rope_type: type = from["type"], rope_theta: own, factor } = from;
  const hasRope = isRecord(parameters) || theta !== undefined || isRecord(scaling);
  return {
    rope_theta: own ?? theta,
    ...(hasRope && { rope_type: type ?? "default", rope_factor: factor ?? 1 }),
  };
}

/** A setting that two configs disagree on. */
interface Difference {
  readonly key: string;
  readonly first: unknown;
  readonly other: unknown;
}

const isUnlike = (first: unknown, other: unknown): boolean =>
  first !== undefined &&
  first !== null &&
  other !== undefined &&
  other !== null &&
  JSON.stringify(plainOf(first)) !== JSON.stringify(plainOf(other));

/** Models of several towers, and the config of the part that a model of its own may be ("clip_vision_model"). */
const towers: readonly (readonly [suffix: RegExp, key: string])[] = [
  [/^_vision(_model)?$/, "vision_config"],
  [/^_text(_model)?$/, "text_config"],
  [/^_audio(_model)?$/, "audio_config"],
];

/** What a whole model's config says of the part that another model is; undefined where it is no part of it. */
function partIn(whole: ModelConfig, { model_type: type }: ModelConfig): ModelConfig | undefined {
  const of = whole["model_type"];
  if (typeof type !== "string" || typeof of !== "string" || !type.startsWith(of)) return undefined;
  const found = towers.find(([suffix]) => suffix.test(type.slice(of.length)));
  const config = found && whole[found[1]];
  return isRecord(config) ? { ...config, model_type: type } : undefined;
}

/**
 * All settings that make another model of the same weights and that both configs have, but differently. A part of a
 * model, saved as one of its own, is held against what the whole says of it.
 */
export function structureDifferences(
  whole: ModelConfig,
  single: ModelConfig,
  { sliced = false }: { readonly sliced?: boolean } = {},
): Difference[] {
  const first = partIn(whole, single) ?? whole;
  const other = partIn(single, whole) ?? single;
  const keys = sliced ? structural : [...structural, ...layerCounts];
  const found = keys
    .filter((key) => isUnlike(first[key], other[key]))
    .map((key): Difference => ({ key, first: first[key], other: other[key] }));
  const [ropeOfFirst, ropeOfOther] = [ropeOf(first), ropeOf(other)];
  for (const key of Object.keys(ropeOfFirst))
    if (isUnlike(ropeOfFirst[key], ropeOfOther[key]))
      found.push({ key, first: ropeOfFirst[key], other: ropeOfOther[key] });
  for (const key of ["text_config", "vision_config", "audio_config", "encoder", "decoder"]) {
    const [a, b] = [first[key], other[key]];
    if (!isRecord(a) || !isRecord(b)) continue;
    for (const { key: inner, ...values } of structureDifferences(a, b, { sliced }))
      found.push({ key: `${key}.${inner}`, ...values });
  }
  return found;
}

const shortJson = (value: unknown): string => {
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
};

/** How a model is named in messages. */
const placeOf = ({ label, checkpoint }: Member): string => `${checkpoint.folder} (${label})`;

/**
 * Checks that models are of one architecture.
 * @param options.allow differences are returned, a line each, in place of an error
 * @throws UserError naming the first model that differs, and in what
 */
export function checkStructure(
  first: Member,
  others: readonly Member[],
  { allow, sliced }: { readonly allow: boolean; readonly sliced?: boolean },
): string[] {
  const lines: string[] = [];
  for (const other of others) {
    const found = structureDifferences(first.checkpoint.config, other.checkpoint.config, {
      sliced: sliced ?? false,
    });
    const [difference] = found;
    if (!difference) continue;
    const more = found.length > 1 ? `, and ${found.length - 1} more settings differ` : "";
    const line =
      `${placeOf(other)}: its config.json has ${difference.key} ${shortJson(difference.other)}, that of ` +
      `${placeOf(first)} ${shortJson(difference.first)}${more}`;
    if (!allow)
      throw new UserError(
        `${line}; they are not of one architecture. If you know that their weights belong together: --allow-mismatch`,
      );
    lines.push(line);
  }
  return lines;
}
