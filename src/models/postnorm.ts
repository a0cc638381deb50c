import type { Tensor2D } from "@tensorflow/tfjs-core";
import { attention, type RelativeBias } from "./attention.js";
import type { State } from "./encoder.js";
import {
  activations,
  dense,
  denseShapes,
  norm,
  normShapes,
  type ActivationName,
  type NamedShape,
} from "./layers.js";
import { plus } from "./ops.js";
import type { Block, Weights } from "./types.js";

/** What a layer calls its modules. */
export interface PostNormNames {
  /** Three that stand side by side. */
  readonly qkv: readonly string[];
  readonly out: string;
  readonly norm1: string;
  readonly up: string;
  readonly down: string;
  readonly norm2: string;
}

export interface PostNorm<S extends State = State> {
  readonly width: number;
  readonly inner: number;
  readonly heads: number;
  readonly epsilon: number;
  readonly activation: ActivationName;
  readonly names: PostNormNames;
  /** A learned bias by relative position that all layers share: its table's name and shape, and how it is read. */
  readonly relative?:
    | {
        readonly shape: readonly [name: string, shape: readonly [buckets: number, heads: number]];
        of(w: Weights, state: S): RelativeBias;
      }
    | undefined;
  /** Attention of a family's own, in place of that to `qkv`: what a layer reads for it, and how. */
  attention?(layer: string): {
    readonly shapes: readonly NamedShape[];
    /** @returns what heads make of the tokens, [tokens, width] */
    run(w: Weights, state: S): Tensor2D;
  };
}

/**
 * One layer with its norms behind: norm(x + attention x), then norm(x + feed-forward x), as the first Transformer had
 * it (Vaswani et al. 2017). BERT, RoBERTa, MPNet, DistilBERT, ELECTRA, ALBERT.
 * @param layer the module that has its weights
 */
export function postNormLayer<S extends State>(
  layer: string,
  { width, inner, heads, epsilon, activation, names, relative, attention: own }: PostNorm<S>,
  id = layer,
): Block<S> {
  const module = (name: string) => `${layer}.${name}`;
  const qkv = names.qkv.map(module);
  const attending = own?.(layer) ?? {
    shapes: [
      ...qkv.flatMap((name) => denseShapes(name, width, width)),
      ...(relative ? [relative.shape] : []),
    ],
    run: (w: Weights, state: S) =>
      attention(dense(w, state.x, qkv), state.bias, heads, relative?.of(w, state)),
  };
  const [out, norm1, norm2] = [module(names.out), module(names.norm1), module(names.norm2)];
  const [up, down] = [module(names.up), module(names.down)];
  return {
    id,
    shapes: new Map([
      ...attending.shapes,
      ...denseShapes(out, width, width),
      ...normShapes(norm1, width),
      ...denseShapes(up, inner, width),
      ...denseShapes(down, width, inner),
      ...normShapes(norm2, width),
    ]),
    run(w, state) {
      const attended = dense(w, attending.run(w, state), out);
      const middle = norm(w, norm1, plus(attended, state.x), epsilon);
      const wide = activations[activation](dense(w, middle, up));
      return { ...state, x: norm(w, norm2, plus(dense(w, wide, down), middle), epsilon) };
    },
  };
}

/** Layers of one form, one after the other: `layers.0`, `layers.1`, … */
export const postNormLayers = <S extends State>(
  prefix: string,
  count: number,
  form: PostNorm<S>,
): Block<S>[] => Array.from({ length: count }, (_, i) => postNormLayer(`${prefix}.${i}`, form));
