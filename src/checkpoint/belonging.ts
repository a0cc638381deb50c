/**
 * Whether models belong together. By their configs: of one architecture, or refused. By a sample of the task vectors
 * (expert − base): numbers cannot prove that experts were tuned from their base, so what stands out is told, and
 * refused where the user wants that.
 */
import { UserError } from "../errors.js";
import { isRecord } from "./files.js";
import type { Member } from "./family.js";
import { at, f32 } from "../at.js";
import { dot } from "../tensor/rows.js";
import { isFloat } from "../tensor/dtype.js";
import { isOptional } from "./names.js";

type Config = Readonly<Record<string, unknown>>;

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
function ropeOf(config: Config): Config {
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

/** Models of several parts, and the config of the part that a model of its own may be ("clip_vision_model"). */
const parts: readonly (readonly [suffix: RegExp, key: string])[] = [
  [/^_vision(_model)?$/, "vision_config"],
  [/^_text(_model)?$/, "text_config"],
  [/^_audio(_model)?$/, "audio_config"],
];

/** What a whole model's config says of the part that another model is; undefined where it is no part of it. */
function partIn(whole: Config, { model_type: type }: Config): Config | undefined {
  const of = whole["model_type"];
  if (typeof type !== "string" || typeof of !== "string" || !type.startsWith(of)) return undefined;
  const found = parts.find(([suffix]) => suffix.test(type.slice(of.length)));
  const config = found && whole[found[1]];
  return isRecord(config) ? { ...config, model_type: type } : undefined;
}

/**
 * All settings that make another model of the same weights and that both configs have, but differently. A part of a
 * model, saved as one of its own, is held against what the whole says of it.
 */
export function structureDifferences(
  whole: Config,
  single: Config,
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

const show = (value: unknown): string => {
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
};

/** How a model is named in messages. */
const nameOf = ({ label, checkpoint }: Member): string => `${checkpoint.folder} (${label})`;

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
      `${nameOf(other)}: its config.json has ${difference.key} ${show(difference.other)}, that of ` +
      `${nameOf(first)} ${show(difference.first)}${more}`;
    if (!allow)
      throw new UserError(
        `${line}; they are not of one architecture. If you know that their weights belong together: --allow-mismatch`,
      );
    lines.push(line);
  }
  return lines;
}

/** Matrices that are looked at, spread evenly over the model, and entries of each: a quarter of a megabyte a model. */
const sampledMatrices = 8;
const sampledEntries = 8192;

/** Of another base a task vector is as large as the weights; fine-tuning changes them by a few percent. */
const largeShare = 0.5;

/** So many times as large as the median of the other experts' stands out. */
const outlier = 10;

/** Two task vectors with so small an angle are one. */
const sameCosine = 0.99999;

/** Names of matrices that all models have in one shape, and rows of each that are read. */
function sampleOf(base: Member, experts: readonly Member[]): { name: string; rows: number; width: number }[] {
  const entryIn = ({ actual, checkpoint }: Member, name: string) => {
    const stored = actual.get(name);
    return stored === undefined ? undefined : checkpoint.entry(stored);
  };
  const matrices = [...base.actual.keys()].flatMap((name) => {
    const entry = entryIn(base, name);
    const [rows, width] = entry?.shape ?? [];
    if (!entry || rows === undefined || width === undefined || entry.shape.length !== 2) return [];
    const fits = (one: Member): boolean => {
      const own = entryIn(one, name);
      return own !== undefined && isFloat(own.dtype) && own.shape.join() === entry.shape.join();
    };
    if (isOptional(name) || rows * width === 0 || ![base, ...experts].every(fits)) return [];
    return [{ name, rows: Math.min(rows, Math.ceil(sampledEntries / width)), width }];
  });
  const step = Math.max(1, matrices.length / sampledMatrices);
  const count = Math.min(matrices.length, sampledMatrices);
  return Array.from({ length: count }, (_, i) => at(matrices, Math.floor(i * step)));
}

/** Dot products of some vectors, and the square of what they are taken from. */
interface Products {
  /** ⟨τ_i, τ_j⟩ */
  readonly dots: readonly Float64Array[];
  /** ‖base‖² */
  base: number;
}

async function productsOf(base: Member, experts: readonly Member[]): Promise<Products> {
  const found: Products = { dots: experts.map(() => new Float64Array(experts.length)), base: 0 };
  for (const { name, rows, width } of sampleOf(base, experts)) {
    const own = await base.rows(name, [[0, rows]], width);
    for (const x of own) found.base += x * x;
    const vectors: Float32Array[] = [];
    for (const expert of experts) {
      const values = Float32Array.from(await expert.rows(name, [[0, rows]], width));
      vectors.push(values.map((x, i) => x - f32(own, i)));
    }
    for (const [i, a] of vectors.entries())
      for (const [j, b] of vectors.slice(0, i + 1).entries()) {
        const row = at(found.dots, i);
        row[j] = (row[j] ?? 0) + dot(a, b);
      }
  }
  return found;
}

const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** What stands out of experts, by the sizes and angles of their task vectors; a line each. */
export function standingOut(labels: readonly string[], { dots, base }: Products): string[] {
  if (base === 0) return [];
  const squares = labels.map((_, i) => at(dots, i)[i] ?? 0);
  const shares = squares.map((square) => Math.sqrt(square / base));
  const lines: string[] = [];
  for (const [i, label] of labels.entries()) {
    const share = at(shares, i);
    const others = shares.filter((_, j) => j !== i).sort((a, b) => a - b);
    const median = others.length ? at(others, Math.floor(others.length / 2)) : 0;
    if (share === 0) lines.push(`${label} is the base itself, as far as a sample of its weights tells`);
    else if (share > largeShare || (median > 0 && share > outlier * median))
      lines.push(
        `${label}: its task vector is ${percent(share)} as large as the base's weights` +
          `${median > 0 ? ` (the others': ${percent(median)})` : ""}; was it tuned from this base?`,
      );
    for (const [j, other] of labels.slice(0, i).entries()) {
      const cosine = (at(dots, i)[j] ?? 0) / Math.sqrt(at(squares, i) * at(squares, j));
      const isSameSize = Math.abs(share - at(shares, j)) <= 1e-6 * share;
      if (cosine > sameCosine && isSameSize)
        lines.push(`${label} and ${other} are one model, as far as a sample tells`);
    }
  }
  return lines;
}

/**
 * Looks at a sample of the experts' weights. Held: that sample, a quarter of a megabyte a model.
 * @param strict refuses what stands out
 * @returns what stands out, a line each
 */
export async function checkBelonging(
  base: Member,
  experts: readonly Member[],
  strict: boolean,
): Promise<string[]> {
  const lines = standingOut(
    experts.map(({ label, checkpoint }) => `${checkpoint.folder} (${label})`),
    await productsOf(base, experts),
  );
  if (strict && lines.length) throw new UserError(`--strict: ${lines.join("; ")}`);
  return lines;
}
