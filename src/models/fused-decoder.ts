/** Decoders whose layers make queries, keys and values of one matrix, with LayerNorms: GPT-NeoX and Falcon. */
import type { Tensor2D } from "@tensorflow/tfjs-core";
import { causalModel } from "./decoder.js";
import type { State } from "./encoder.js";
import { apart, type FusedHeads } from "./fused-heads.js";
import { attendBack } from "./kv-cache.js";
import {
  activations,
  dense,
  denseShapes,
  lookUpRows,
  norm,
  normShapes,
  type ActivationName,
  type DenseOptions,
} from "./layers.js";
import { causalBiases } from "./layout.js";
import { plus } from "./ops.js";
import { angles, rotary, type Angles, type Frequencies } from "./rope.js";
import type { Block, Model, OutputLayer } from "./types.js";

interface FusedState extends State {
  readonly angles: Angles;
}

/** What the modules are called. */
interface FusedNames {
  /** The table of embeddings, and the output layer, which may be it. */
  readonly words: string;
  readonly unembedding: string;
  /** What the layers' numbers stand behind, and attention in a layer. */
  readonly layers: string;
  readonly attention: string;
  /** Norms in front of attention and of the feed-forward: one may be in front of both. */
  readonly attentionNorm: string;
  readonly forwardNorm: string;
  readonly last: string;
}

export interface FusedDecoder {
  readonly names: FusedNames;
  readonly width: number;
  readonly fused: FusedHeads;
  readonly layers: number;
  readonly inner: number;
  readonly vocabulary: number;
  readonly positions: number;
  readonly epsilon: number;
  readonly activation: ActivationName;
  readonly options?: DenseOptions;
  /** Attention and feed-forward stand side by side on the same input, not one behind the other. */
  readonly isParallel: boolean;
  readonly rotations: Frequencies;
  /** Tokens that end a text. */
  readonly ends: readonly number[];
}

function fusedLayer(form: FusedDecoder, index: number): Block<FusedState> {
  const { names, width, fused, inner, epsilon, activation, options = {}, isParallel } = form;
  const { groups, queries, depth } = fused;
  const heads = groups * queries;
  const layer = `${names.layers}.${index}`;
  const module = (name: string) => `${layer}.${name}`;
  const [norm1, norm2] = [module(names.attentionNorm), module(names.forwardNorm)];
  const [qkv, out] = [module(`${names.attention}.query_key_value`), module(`${names.attention}.dense`)];
  const [up, down] = [module("mlp.dense_h_to_4h"), module("mlp.dense_4h_to_h")];
  const scale = 1 / Math.sqrt(depth);
  return {
    id: layer,
    shapes: new Map([
      ...normShapes(norm1, width),
      ...denseShapes(qkv, groups * (queries + 2) * depth, width, options),
      ...denseShapes(out, width, width, options),
      ...normShapes(norm2, width),
      ...denseShapes(up, inner, width, options),
      ...denseShapes(down, width, inner, options),
    ]),
    run(w, state) {
      const { x } = state;
      const entered = norm(w, norm1, x, epsilon);
      const [q, k, v] = apart(dense(w, entered, qkv, options), fused);
      const turned = [rotary(q, heads, state.angles), rotary(k, groups, state.angles)] as const;
      const attended = attendBack(layer, [...turned, v], state, { heads, scale });
      const middle = plus(x, dense(w, attended, out, options));
      const before = (): Tensor2D => {
        if (norm1 === norm2) return entered;
        return norm(w, norm2, isParallel ? x : middle, epsilon);
      };
      const wide = activations[activation](dense(w, before(), up, options));
      return { ...state, x: plus(middle, dense(w, wide, down, options)) };
    },
  };
}

/** As a language model (`score`), or with a head on the last token (`pool`). */
export function fusedDecoder(outputLayer: OutputLayer, form: FusedDecoder): Model {
  const { names, width, fused, vocabulary, epsilon } = form;
  const { words, last } = names;
  const embeddings: Block<FusedState> = {
    id: "embeddings",
    shapes: new Map([[words, [vocabulary, width]]]),
    run: (w, state) => ({ ...state, x: lookUpRows(w, { name: words, ids: state.batch.ids }) }),
  };
  return causalModel<FusedState>(outputLayer, {
    blocks: [embeddings, ...Array.from({ length: form.layers }, (_, i) => fusedLayer(form, i))],
    last: {
      id: last,
      shapes: new Map(normShapes(last, width)),
      normalise: (w, x) => norm(w, last, x, epsilon),
      unembedding: names.unembedding,
    },
    tables: [words],
    width,
    heads: fused.groups * fused.queries,
    vocabulary,
    maxLength: Math.min(form.positions, 1e6),
    padId: 0,
    lookups: ({ ids }) => [{ name: words, ids }],
    generates: { ends: form.ends },
    start: (initial) => ({
      ...initial,
      bias: causalBiases(initial.batch),
      angles: angles(initial.batch.positions, form.rotations),
    }),
  });
}
