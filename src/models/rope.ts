import { tensor3d } from "@tensorflow/tfjs-core";
import { UserError } from "../errors.js";
import type { Angles } from "./attention.js";
import { readConfig } from "./config.js";
import type { Config } from "./types.js";

/** Angle a place of every pair of entries, and what cos and sin are multiplied by. */
export interface Frequencies {
  readonly values: Float64Array;
  readonly factor: number;
}

/**
 * Rotary frequencies of a config, with the scalings that transformers knows by these names: linear,
 * dynamic, llama3, yarn.
 */
export function frequencies(json: Config, depth: number, positions: number): Frequencies {
  const given = { ...(json["rope_scaling"] as Config | null), ...(json["rope_parameters"] as Config | null) };
  const type = given["rope_type"] ?? given["type"] ?? "default";
  const { positive } = readConfig({ rope_theta: json["rope_theta"], ...given }, "rope_parameters");
  const theta = positive("rope_theta", 10000);
  const plain = Float64Array.from({ length: depth / 2 }, (_, i) => theta ** ((-2 * i) / depth));
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
    const turn = (rotations: number) =>
      (depth * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
    const low = Math.max(0, Math.floor(turn(positive("beta_fast", 32))));
    const high = Math.min(depth - 1, Math.ceil(turn(positive("beta_slow", 1))));
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
      "only linear, dynamic, llama3, yarn",
  );
}

/** cos and sin at every token's place: [tokens, 1, depth]. */
export function angles(positions: Int32Array, { values, factor }: Frequencies): Angles {
  const depth = 2 * values.length;
  const [cos, sin] = [new Float32Array(positions.length * depth), new Float32Array(positions.length * depth)];
  for (const [t, position] of positions.entries()) {
    for (let i = 0; i < depth; i++) {
      // As transformers computes it: the angle in float32.
      const angle = Math.fround(position * Math.fround(values[i % values.length]!));
      cos[t * depth + i] = factor * Math.cos(angle);
      sin[t * depth + i] = factor * Math.sin(angle);
    }
  }
  const shape: [number, number, number] = [positions.length, 1, depth];
  return { cos: tensor3d(cos, shape), sin: tensor3d(sin, shape) };
}
