import { split, type Tensor2D } from "@tensorflow/tfjs-core";
import type { ActivationName } from "./activations.js";
import { activations } from "./activations.js";
import { attention } from "./attention.js";
import { dense, denseShapes, norm, normShapes, type DenseOptions } from "./dense.js";
import type { State } from "./encoder.js";
import { attendBack } from "./kv-cache.js";
import { plus } from "./ops.js";
import type { Block } from "./types.js";

export interface PreNorm extends DenseOptions {
  readonly width: number;
  readonly inner: number;
  readonly heads: number;
  readonly epsilon: number;
  readonly activation: ActivationName;
  /** What a layer calls its modules. `qkv` is one module, or three that stand side by side. */
  readonly names: {
    readonly norm1: string;
    readonly qkv: readonly string[];
    readonly out: string;
    readonly norm2: string;
    readonly up: string;
    readonly down: string;
  };
}

/**
 * One layer with its norms in front: x + attention(norm x), then x + feed-forward(norm x). ViT, CLIP's
 * towers, GPT-2.
 */
export function preNormLayer(
  at: string,
  { width, inner, heads, epsilon, activation, names, transposed }: PreNorm,
): Block<State> {
  const [norm1, out, norm2, up, down] = [names.norm1, names.out, names.norm2, names.up, names.down].map(
    (name) => `${at}.${name}`,
  ) as [string, string, string, string, string];
  const qkv = names.qkv.map((name) => `${at}.${name}`);
  const options = { transposed };
  return {
    id: at,
    shapes: new Map([
      ...normShapes(norm1, width),
      ...qkv.flatMap((module) => denseShapes(module, (3 * width) / qkv.length, width, options)),
      ...denseShapes(out, width, width, options),
      ...normShapes(norm2, width),
      ...denseShapes(up, inner, width, options),
      ...denseShapes(down, width, inner, options),
    ]),
    run(w, state) {
      const x = state.x as Tensor2D;
      const projected = dense(w, norm(w, norm1, x, epsilon), qkv, options);
      const seen = state.cache
        ? attendBack(at, split(projected, 3, 1) as [Tensor2D, Tensor2D, Tensor2D], state, {
            heads,
            scale: Math.sqrt(heads / width),
          })
        : attention(projected, state.bias, heads);
      const middle = plus(x, dense(w, seen, out, options));
      return {
        ...state,
        x: plus(
          middle,
          dense(
            w,
            activations[activation](dense(w, norm(w, norm2, middle, epsilon), up, options)),
            down,
            options,
          ),
        ),
      };
    },
  };
}
