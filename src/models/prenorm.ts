import { split, type Tensor2D } from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import {
  activations,
  dense,
  denseShapes,
  norm,
  normShapes,
  weightVector,
  type ActivationName,
  type NamedShape,
  type DenseOptions,
} from "./layers.js";
import { attention } from "./attention.js";
import type { State } from "./encoder.js";
import { attendBack } from "./kv-cache.js";
import { plus, scaled } from "./ops.js";
import type { Block, Weights } from "./types.js";

/** What a layer calls its modules. */
export interface PreNormNames {
  readonly norm1: string;
  /** One module, or three that stand side by side. */
  readonly qkv: readonly string[];
  readonly out: string;
  readonly norm2: string;
  readonly up: string;
  readonly down: string;
  /** What each entry of attention's and feed-forward's results is multiplied by (LayerScale: Touvron et al. 2021). */
  readonly scale1?: string | undefined;
  readonly scale2?: string | undefined;
}

export interface PreNorm extends DenseOptions {
  readonly width: number;
  readonly inner: number;
  readonly heads: number;
  readonly epsilon: number;
  readonly activation: ActivationName;
  readonly names: PreNormNames;
}

/**
 * One layer with its norms in front: x + attention(norm x), then x + feed-forward(norm x). ViT,
 * DINOv2, CLIP's towers, GPT-2, OPT.
 */
function preNormLayer(
  layer: string,
  { width, inner, heads, epsilon, activation, names, transposed }: PreNorm,
): Block<State> {
  const module = (name: string) => `${layer}.${name}`;
  const [norm1, out, norm2] = [module(names.norm1), module(names.out), module(names.norm2)];
  const [up, down] = [module(names.up), module(names.down)];
  const qkv = names.qkv.map(module);
  const options = { transposed };
  const scales = [names.scale1, names.scale2].flatMap((name) => (name === undefined ? [] : [module(name)]));
  const gained = (w: Weights, name: string | undefined, x: Tensor2D): Tensor2D =>
    name === undefined ? x : scaled(x, weightVector(w, module(name)));
  /** Of queries, keys and values side by side, [tokens, 3 · width]. */
  const attended = (projected: Tensor2D, state: State): Tensor2D => {
    if (!state.cache) return attention(projected, state.bias, heads);
    const parts = split<Tensor2D>(projected, 3, 1);
    return attendBack(layer, [at(parts, 0), at(parts, 1), at(parts, 2)], state, {
      heads,
      scale: Math.sqrt(heads / width),
    });
  };
  return {
    id: layer,
    shapes: new Map([
      ...normShapes(norm1, width),
      ...qkv.flatMap((name) => denseShapes(name, (3 * width) / qkv.length, width, options)),
      ...denseShapes(out, width, width, options),
      ...normShapes(norm2, width),
      ...denseShapes(up, inner, width, options),
      ...denseShapes(down, width, inner, options),
      ...scales.map((name): NamedShape => [name, [width]]),
    ]),
    run(w, state) {
      const { x } = state;
      const projected = dense(w, norm(w, norm1, x, epsilon), qkv, options);
      const looked = dense(w, attended(projected, state), out, options);
      const middle = plus(x, gained(w, names.scale1, looked));
      const wide = dense(w, norm(w, norm2, middle, epsilon), up, options);
      const made = dense(w, activations[activation](wide), down, options);
      return { ...state, x: plus(middle, gained(w, names.scale2, made)) };
    },
  };
}

/** Layers of one form, one after the other: `layers.0`, `layers.1`, … */
export const preNormLayers = (prefix: string, count: number, form: PreNorm): Block<State>[] =>
  Array.from({ length: count }, (_, i) => preNormLayer(`${prefix}.${i}`, form));
