/** Rotary position embeddings. */
import {
  add,
  concat,
  mul,
  reshape,
  slice,
  tensor3d,
  type Tensor,
  type Tensor2D,
  type Tensor3D,
} from "@tensorflow/tfjs-core";
import { at, f64 } from "../at.js";
import { UserError } from "../errors.js";
import { configReader, sectionOf } from "./config.js";
import { op } from "./ops.js";
import type { Config } from "./types.js";

/** Angle a position of every pair of entries, and what cos and sin are multiplied by. */
export interface Frequencies {
  readonly values: Float64Array;
  readonly factor: number;
  /** Positions for which these frequencies are meant, where there are others for more. */
  readonly positions?: number | undefined;
}

/**
 * LongRoPE (Ding et al. 2024): every pair of entries has a factor of its own. A config has a second list for texts
 * longer than those that the model was trained on first; rows are never longer here.
 */
function longRope(given: Config, plain: Float64Array, positions: number, outside: unknown): Frequencies {
  const { short_factor: factors, original_max_position_embeddings: inside } = given;
  const settings = { ...given, original_max_position_embeddings: outside ?? inside };
  const { positive } = configReader(settings, "rope_parameters");
  // Phi-3's, where a config does not say.
  const original = positive("original_max_position_embeddings", 4096);
  const isRight = Array.isArray(factors) && factors.length === plain.length;
  if (!isRight || !factors.every((one): one is number => typeof one === "number" && one > 0))
    throw new UserError(`config.json: "short_factor" must be ${plain.length} numbers above 0`);
  const ratio = positive("factor", positions / original);
  const usual = ratio <= 1 ? 1 : Math.sqrt(1 + Math.log(ratio) / Math.log(original));
  return {
    values: plain.map((f, i) => f / at(factors, i)),
    factor: positive("attention_factor", usual),
    positions: original,
  };
}

/** The entries of a head that turn: its first ones, an even number. */
function turningEntries(depth: number, part: number): number {
  const turning = Math.floor(depth * part);
  if (part <= 1 && turning > 0 && turning % 2 === 0) return turning;
  throw new UserError(
    `config.json: "partial_rotary_factor" ${part} of a head of ${depth} entries is no even number of them`,
  );
}

/** What some families do that others do not: a config that asks it of them is refused. */
export interface RotaryForm {
  /** The part of a head that turns. Default: all of it. */
  readonly part?: number;
  /** LongRoPE's scaling: the family heeds {@link Frequencies.positions}. */
  readonly isLong?: boolean;
}

/** Rotary settings of a config, whether it has them itself or in one of two sections. */
export const rotarySettings = ({ rope_theta, partial_rotary_factor, ...json }: Config): Config => ({
  rope_theta,
  partial_rotary_factor,
  ...sectionOf(json, "rope_scaling"),
  ...sectionOf(json, "rope_parameters"),
});

/**
 * Rotary frequencies of a config, with the scalings that transformers knows by these names: linear,
 * dynamic, llama3, yarn, longrope.
 * @param depth entries of a head
 */
export function frequencies(
  json: Config,
  depth: number,
  positions: number,
  { part, isLong = false }: RotaryForm = {},
): Frequencies {
  const given = rotarySettings(json);
  const type = given["rope_type"] ?? given["type"] ?? "default";
  const { positive, only } = configReader(given, "rope_parameters");
  if (part === undefined) only("partial_rotary_factor", 1);
  const turning = turningEntries(depth, part ?? 1);
  const theta = positive("rope_theta", 10000);
  const plain = Float64Array.from({ length: turning / 2 }, (_, i) => theta ** ((-2 * i) / turning));
  // Phi-3's first configs call it by other names.
  if (isLong && (type === "longrope" || type === "su" || (type === "yarn" && "short_factor" in given)))
    return longRope(given, plain, positions, json["original_max_position_embeddings"]);
  // Dynamic scaling begins beyond the positions that a row is cut to.
  if (type === "default" || type === "dynamic") return { values: plain, factor: 1 };
  const factor = positive("factor");
  if (type === "linear") return { values: plain.map((f) => f / factor), factor: 1 };
  const original = positive("original_max_position_embeddings", positions);
  if (type === "llama3") {
    const [low, high] = [positive("low_freq_factor"), positive("high_freq_factor")];
    return {
      factor: 1,
      values: plain.map((f) => {
        const wave = (2 * Math.PI) / f;
        if (wave < original / high) return f;
        if (wave > original / low) return f / factor;
        const smooth = (original / wave - low) / (high - low);
        return ((1 - smooth) * f) / factor + smooth * f;
      }),
    };
  }
  if (type === "yarn") {
    // The pair of entries that makes so many rotations over the positions it was trained on.
    const pairOf = (rotations: number) =>
      (turning * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
    const low = Math.max(0, Math.floor(pairOf(positive("beta_fast", 32))));
    const high = Math.min(turning - 1, Math.ceil(pairOf(positive("beta_slow", 1))));
    const span = high === low ? 0.001 : high - low;
    return {
      factor: positive("attention_factor", 0.1 * Math.log(factor) + 1),
      values: plain.map((f, i) => {
        const ramp = Math.min(1, Math.max(0, (i - low) / span));
        return (f / factor) * ramp + f * (1 - ramp);
      }),
    };
  }
  throw new UserError(
    `config.json: rotary embeddings scaled by ${JSON.stringify(type)} are not supported, ` +
      `only linear, dynamic, llama3, yarn${isLong ? ", longrope" : ""}`,
  );
}

/** cos and sin of every token's angles, [tokens, 1, depth] each. */
export interface Angles {
  readonly cos: Tensor3D;
  readonly sin: Tensor3D;
}

/** cos and sin at every token's position. */
export function angles(positions: Int32Array, { values, factor }: Frequencies): Angles {
  const half = values.length;
  const depth = 2 * half;
  const [cos, sin] = [new Float32Array(positions.length * depth), new Float32Array(positions.length * depth)];
  for (const [t, position] of positions.entries()) {
    for (let i = 0; i < half; i++) {
      // As transformers computes it: the angle in float32. Both halves of a head turn alike.
      const angle = Math.fround(position * Math.fround(f64(values, i)));
      const entry = t * depth + i;
      cos[entry] = cos[entry + half] = factor * Math.cos(angle);
      sin[entry] = sin[entry + half] = factor * Math.sin(angle);
    }
  }
  const shape: [number, number, number] = [positions.length, 1, depth];
  return { cos: tensor3d(cos, shape), sin: tensor3d(sin, shape) };
}

/** (−x₂, x₁) of the halves of every head, [tokens, heads, depth]; with sign −1 the way back. */
function quarterTurn(x: Tensor3D, sign: 1 | -1): Tensor {
  const half = x.shape[2] / 2;
  const [first, second] = [slice(x, [0, 0, 0], [-1, -1, half]), slice(x, [0, 0, half], [-1, -1, half])];
  return concat([mul(second, -sign), mul(first, sign)], 2);
}

/** Of every head [tokens, heads, depth] the entries that turn, and those that do not, where there are some. */
function turningParts(x: Tensor3D, turning: number): [Tensor3D, ...Tensor3D[]] {
  if (turning === x.shape[2]) return [x];
  return [slice(x, [0, 0, 0], [-1, -1, turning]), slice(x, [0, 0, turning], [-1, -1, -1])];
}

/**
 * Rotary position embedding (Su et al. 2021) in halves, as transformers has it: x ⊙ cos + (−x₂, x₁) ⊙
 * sin, a head at a time. Where there are fewer angles than entries, a head's further ones stay as they are.
 */
export function rotary(x: Tensor2D, heads: number, { cos, sin }: Angles): Tensor2D {
  const [tokens, width] = x.shape;
  const turning = cos.shape[2];
  const byHead = (t: Tensor): Tensor3D => reshape(t, [tokens, heads, width / heads]);
  const whole = (turned: Tensor, rest: Tensor[]): Tensor2D =>
    reshape(rest.length > 0 ? concat([turned, ...rest], 2) : turned, [tokens, width]);
  return op(
    [x],
    ([input]) => {
      const [part, ...rest] = turningParts(byHead(input), turning);
      return { value: whole(add(mul(part, cos), mul(quarterTurn(part, 1), sin)), rest), saved: [cos, sin] };
    },
    (dy, [savedCos, savedSin]) => {
      const [part, ...rest] = turningParts(byHead(dy), turning);
      return [whole(add(mul(part, savedCos), quarterTurn(mul(part, savedSin), -1)), rest)];
    },
  );
}
